"""Features of CLIP's image side, by open_clip."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..base.errors import UserError
from ..registry import EMBEDDERS
from .decode import Transform
from .embedder import (
    OFFLINE_HINT,
    Embedder,
    checkpoint_hash,
    is_torchscript,
    make_transform,
    names_that_do_not_fit,
    read_checkpoint,
)

_SCHEMAS = ('local-dir:', 'hf-hub:')


@EMBEDDERS.register_module()
class OpenCLIPEmbedder(Embedder):
    """The image side of any CLIP-like model that open_clip knows.

    Args:
        model: open_clip's name of the architecture, or ``'local-dir:FOLDER'`` or
            ``'hf-hub:ORGANISATION/NAME'``, which bring their own weights.
        pretrained: open_clip's name of weights to fetch, or a local file.
        quick_gelu: whether the network was trained with OpenAI's approximation of GELU. None
            decides by the weights' entry in open_clip's list; a local file counts as OpenAI's own,
            and gets it, if it is a TorchScript archive or has ``openai`` in its name, otherwise the
            architecture decides (``ViT-B-32-quickgelu`` has it). Files say nothing about it
            themselves, and the wrong choice spoils the features.
        precision: see ``Embedder``.
        batch_size: likewise.
        workers: likewise.
        device: likewise.
        near_duplicate: likewise.
        median: likewise.

    Raises:
        UserError: the model or the weights are unknown.
    """

    def __init__(
        self,
        model: str = 'ViT-B-32',
        pretrained: str | None = 'openai',
        quick_gelu: bool | None = None,
        precision: str = 'auto',
        batch_size: int | None = None,
        workers: int | None = None,
        device: str | None = None,
        near_duplicate: float = 0.95,
        median: int = 0,
    ) -> None:
        super().__init__(precision, batch_size, workers, device, near_duplicate, median)
        self.model = model
        self.pretrained = None if model.startswith(_SCHEMAS) else pretrained
        self.checkpoint = self._find_checkpoint()
        self.quick_gelu = self._find_quick_gelu() if quick_gelu is None else quick_gelu

    def _identity(self) -> dict[str, Any]:
        weights = self.pretrained
        if self.checkpoint:
            weights = checkpoint_hash(self.checkpoint, 'pretrained')
        return dict(
            model=self.model,
            weights=weights,
            quick_gelu=self.quick_gelu,
        )

    def _find_checkpoint(self) -> Path | None:
        """The local file with the weights, None where they come from a hub."""
        if self.model.startswith('local-dir:'):
            return _checkpoint_in(Path(self.model.removeprefix('local-dir:')))
        if self.model.startswith('hf-hub:'):
            return None
        import open_clip

        if self.model not in open_clip.list_models():
            raise UserError(
                f'adadedup.embedder.model is {self.model!r}, which open_clip does not know: see '
                'open_clip.list_models() for the names'
            )

        tags = open_clip.list_pretrained_tags_by_model(self.model)
        if self.pretrained is None:
            raise UserError(
                'adadedup.embedder.pretrained is None: name a local file, or weights for '
                f'{self.model}: {", ".join(tags)}'
            )
        if open_clip.get_pretrained_cfg(self.model, self.pretrained):
            return None
        if not Path(self.pretrained).is_file():
            raise UserError(
                f'adadedup.embedder.pretrained is {self.pretrained!r}, which is neither a file '
                f"nor one of open_clip's weights for {self.model}: {', '.join(tags)}"
            )

        return Path(self.pretrained)

    def _find_quick_gelu(self) -> bool:
        """The default of ``quick_gelu``, which can only switch it on."""
        if self.model.startswith(_SCHEMAS):
            return False
        if self.checkpoint:
            return 'openai' in self.checkpoint.name.lower() or is_torchscript(self.checkpoint)
        import open_clip

        entry = open_clip.get_pretrained_cfg(self.model, self.pretrained)
        return entry.get('quick_gelu', False)

    def load_text(self) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
        """The text side of the model.

        Returns:
            A model with ``encode_text``, in float32 on the embedder's device, and its tokenizer.

        Raises:
            UserError: the weights are those of the image side only, or cannot be had.
        """
        import open_clip

        model = self._create()
        model.visual = nn.Identity()
        if self.checkpoint:
            _load_text_side(model, self.checkpoint, self.model)
        try:
            tokenizer = open_clip.get_tokenizer(self.model)
        except Exception as error:  # some text models bring their tokenizer from a hub
            raise UserError(
                f'the tokenizer of {self.model} cannot be had ({type(error).__name__}): '
                f'{OFFLINE_HINT}'
            ) from error

        return model.eval().requires_grad_(False).to(self.device), tokenizer

    def _create(self) -> Any:
        """The whole model; with random weights where they are to come from a local file."""
        import open_clip

        fetched = self.checkpoint is None
        try:
            with _quiet_root_logger():
                return open_clip.create_model(
                    self.model,
                    self.pretrained if fetched else None,
                    load_weights=fetched,
                    require_pretrained=fetched,
                    force_quick_gelu=self.quick_gelu,
                    pretrained_text=False,
                )
        except Exception as error:  # whatever a hub, a network or a file system may raise
            raise UserError(
                f'the model {self.model} with weights {self.pretrained} cannot be had '
                f'({type(error).__name__}): {OFFLINE_HINT}'
            ) from error

    def _load(self) -> tuple[nn.Module, Transform]:
        model = self._create()
        if self.checkpoint:
            _load_visual(model.visual, self.checkpoint, self.model)
        preprocessing = dict(model.visual.preprocess_cfg)
        if self.checkpoint and self.pretrained:
            preprocessing.update(_common_preprocessing(self.model))
        if preprocessing['resize_mode'] == 'longest':
            raise UserError(
                f"adadedup.embedder: {self.model} pads its images (resize_mode 'longest'): choose "
                'another'
            )

        squash = preprocessing['resize_mode'] == 'squash'
        transform = make_transform(preprocessing['size'], None, squash, preprocessing)

        return model.visual, transform


def _checkpoint_in(folder: Path) -> Path:
    """The weights in a folder of the kind that open_clip writes for a hub."""
    files: list[Path] = []
    for suffix in ('safetensors', 'bin', 'pth', 'pt'):
        files += folder.glob(f'*.{suffix}')
    if not (folder / 'open_clip_config.json').is_file() or not files:
        raise UserError(
            f'adadedup.embedder.model: {folder} needs an open_clip_config.json and a file with '
            'weights'
        )
    return min(files, key=_rank_of_weights)


def _rank_of_weights(file: Path) -> tuple[bool, bool, Path]:
    """open_clip's own files come first, then those of safetensors, then by name."""
    return not file.name.startswith('open_clip'), file.suffix != '.safetensors', file


def _load_visual(visual: nn.Module, path: Path, model: str) -> None:
    """Puts the image side's weights of a local file into the network."""
    weights = {}
    for name, value in read_checkpoint(path).items():
        if name.startswith('visual.'):
            weights[name.removeprefix('visual.')] = value

    try:
        visual.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f'adadedup.embedder.pretrained: the weights in {path} are not those of a {model}: '
            'name the architecture they were trained with'
        ) from error


def _load_text_side(model: Any, path: Path, name: str) -> None:
    """Puts the text side's weights of a local file into the model."""
    from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict

    weights: dict[str, Any] = read_checkpoint(path)
    if isinstance(model, CustomTextCLIP):
        weights = convert_to_custom_text_state_dict(weights)
    expected = model.state_dict()
    wrong = names_that_do_not_fit(weights, expected)
    if wrong:
        raise UserError(
            f'the weights in {path} have no text side of a {name} ({len(wrong)} of '
            f'{len(expected)} tensors are missing or do not fit, first {wrong[0]}): use '
            "adadedup.strategy's text='ngrams'"
        )

    model.load_state_dict({name: weights[name] for name in expected})


def _common_preprocessing(model: str) -> dict[str, Any]:
    """What all of open_clip's weights of an architecture agree on.

    A local file itself says nothing about it.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    entries = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    common: dict[str, Any] = {}
    if not entries:
        return common
    for name in ('mean', 'std', 'interpolation', 'resize_mode'):
        value = entries[0].get(name)
        if value and all(entry.get(name) == value for entry in entries):
            common[name] = value

    return common


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Drops what open_clip says on the root logger.

    That weights are random, before ours are loaded, and errors, which are raised as well.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    hub = logging.getLogger('huggingface_hub')
    level = hub.level
    root.addFilter(_drop)
    root.addHandler(handler)
    hub.setLevel(logging.CRITICAL)  # it tells of every retry
    try:
        yield
    finally:
        hub.setLevel(level)
        root.removeHandler(handler)
        root.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False
