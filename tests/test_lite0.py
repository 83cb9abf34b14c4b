"""The frozen backbone of the tiny proxy."""

import torch

from adadedup_mm.models.lite0 import FrozenLite0


def backbone(remember=0):
    return FrozenLite0(remember)


def images(count=3, seed=0):
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def test_outputs_have_the_promised_shapes_and_are_those_of_the_plain_network():
    frozen = backbone()
    with torch.no_grad():
        plain = frozen.network(images())
    maps = frozen(images())
    assert [tuple(level.shape) for level in maps] == [
        (3, 24, 16, 24),
        (3, 40, 8, 12),
        (3, 112, 4, 6),
        (3, 320, 2, 3),
    ]
    for level, expected in zip(maps, plain, strict=True):
        assert (level - expected).norm() < 1e-4 * expected.norm()


def test_what_is_remembered_depends_on_the_image_alone_and_has_a_limit():
    alone, together = backbone(remember=2), backbone(remember=2)
    for image in images():
        alone(image[None])
    first = together(images())
    assert len(alone._remembered) == len(together._remembered) == 2
    for one, other in zip(alone(images()), first, strict=True):
        assert torch.equal(one, other)
    # A caller that writes into what it got does not change what is remembered.
    first[0].zero_()
    assert together(images())[0].abs().max() > 0


def test_training_mode_and_optimisers_leave_it_alone():
    frozen = backbone().train()
    assert not any(module.training for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen(images())
    after = frozen.state_dict()
    assert after.keys() == before.keys() and all(
        torch.equal(after[name], before[name]) for name in before
    )


def test_the_second_look_at_an_image_costs_no_network():
    frozen = backbone(remember=5)
    frozen(images())
    frozen._fast.clear()
    frozen._network_for = lambda _: None
    assert frozen(images())[0].shape[0] == 3


def test_other_weights_forget_what_was_seen_and_the_same_ones_do_not():
    frozen = backbone(remember=5)
    before = frozen(images())
    frozen.load_state_dict(frozen.state_dict())
    assert len(frozen._remembered) == 3
    model = torch.nn.Sequential(frozen)
    model.load_state_dict(
        {
            name: value * 0.9 if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
    )
    with torch.no_grad():
        expected = frozen.network(images())
    for level, old, new in zip(frozen(images()), before, expected, strict=True):
        assert (
            not torch.allclose(level, old, rtol=0.01) and (level - new).norm() < 1e-4 * new.norm()
        )
