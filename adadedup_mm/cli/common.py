"""What the command line tools share: exit codes and the flags of the field."""

import argparse
import datetime
import errno
import io
import os
import sys
import textwrap
from collections.abc import Callable

from mmengine.config import DictAction
from rich.console import Console
from rich.table import Table

from ..base.errors import ProcessError, UserError
from ..probe.statistics import CurveSummary
from ..probe.tables import WIDTH, curve_text
from ..probe.verdict import Verdict


def run(
    main: Callable[[list[str] | None], None],
    arguments: list[str] | None = None,
    go_on: str = 'run the same command with --resume to go on',
) -> None:
    """Calls ``main`` and ends the process where that fails.

    The exit code is 0 where all is done, 2 for wrong input, with one line on standard error, and 1
    for anything else.

    Args:
        main: what the tool does with its arguments.
        arguments: of the command line; those of the process by default.
        go_on: what to do after an interruption, in words.
    """
    # Terminals and files of old encodings lack characters that we print.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='replace')
    try:
        main(arguments)
    except UserError as error:
        # A DataLoader's worker hands on its whole traceback as the message; its last line is ours.
        last_line = str(error).strip().splitlines()[-1]
        line = last_line.removeprefix(f'{UserError.__module__}.{UserError.__name__}: ')
        if _is_first_to_say(line):
            print(f'error: {line}', file=sys.stderr)
        sys.exit(2)
    except ProcessError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f'error: {error.strerror}: make room, then {go_on}', file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        # What torch.save makes of a full disk.
        if 'PytorchStreamWriter' not in str(error):
            raise
        print(
            'error: weights cannot be written, probably for lack of space: '
            f'make room, then {go_on}',
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print(f'interrupted; {go_on}', file=sys.stderr)
        sys.exit(1)


def _is_first_to_say(line: str) -> bool:
    """Whether no other process of this machine has found the same.

    True where torchrun's store cannot tell.
    """
    environment = os.environ
    if environment.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return True
    from torch.distributed import TCPStore  # which takes seconds

    try:
        store = TCPStore(
            environment['MASTER_ADDR'],
            int(environment['MASTER_PORT']),
            timeout=datetime.timedelta(seconds=10),
            wait_for_workers=False,
        )
        scope = f'{environment["GROUP_RANK"]}/{environment["TORCHELASTIC_RESTART_COUNT"]}'
        return store.add(f'adadedup_mm/{scope}/{line}', 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return True


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The config, its overrides and the launcher, as in mmdet's tools."""
    parser.add_argument('config', help='your training config with our line in its _base_ list')
    parser.add_argument('--work-dir', help="where results go; the default is the config's work_dir")
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher'
    )
    # torch.distributed.launch passes this flag; torchrun uses the environment.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def add_cfg_options(
    parser: argparse.ArgumentParser, help: str = 'override settings of the config'
) -> None:
    """``--cfg-options KEY=VALUE ...``, as in mmdet's tools."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=_override,
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help=help,
    )


def _override(text: str) -> str:
    """The text as it is; raises UserError for what mmengine cannot split."""
    key, equals, value = text.partition('=')
    if not equals or not all(key.split('.')):
        raise UserError(
            f'--cfg-options {text}: write KEY=VALUE, with dots between the parts of a key'
        )

    try:
        DictAction._parse_iterable(value)
    except (AssertionError, RecursionError):
        raise UserError(f'--cfg-options {text}: the brackets of the value do not match') from None

    return text


def print_table(table: Table) -> None:
    """Prints a table without breaking its cells, in log files and narrow terminals too."""
    width = max(Console().width, 120)
    Console(width=width).print(table)


def print_curve(summary: CurveSummary, verdict: Verdict) -> None:
    """Prints what a probe has measured, and what to make of it."""
    print(f'\n{curve_text(summary)}\n')
    for sentence in verdict.sentences:
        print(textwrap.fill(sentence, WIDTH))
    print(f'next: {verdict.next_step}\n')
    for note in summary.curve.notes:
        print(textwrap.fill(f'note: {note}', WIDTH))


def same_flags(args: argparse.Namespace) -> list[str]:
    """The flags with which the next command works on the same data and in the same place."""
    flags = ['--work-dir', args.work_dir] if args.work_dir else []
    if args.cfg_options:
        flags.append('--cfg-options')
        flags += [f'{key}={value}' for key, value in args.cfg_options.items()]
    return flags
