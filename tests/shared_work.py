"""Doing a stage's work outside of a run."""

from adadedup_mm.stages.engine import Engine, has_result, remove_pieces


def no_waiting(condition):
    assert condition(), 'nobody is there who could bring this about'


def do_pieces(shards, folder, pieces):
    """Computes some pieces, unless they are there or not needed any more."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [piece for piece in pieces if not (folder / shards.files[piece]).exists()]
    if missing and not has_result(shards, folder):
        shards.compute(folder, missing, lambda units: None)


def do_work(shards, folder, world=1):
    """Does all of the work as ``world`` processes one after the other would, the first one last."""
    pieces = range(len(shards.files))
    for rank in reversed(range(1, world)):
        do_pieces(shards, folder, pieces[rank::world])
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(0, world, no_waiting)

    def share():
        engine.share(shards, folder)

    shards.lead(folder, share)
    remove_pieces(shards, folder)
