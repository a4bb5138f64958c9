"""What each rank computes in the tests of distributed training, and one process to compare with.

`python -m torch.distributed.run --nproc-per-node 2 -m tests.support.distributed_job FOLDER` writes
the results of each rank to FOLDER/rank0.safetensors and so on; without torchrun, to
single.safetensors.
"""

import sys
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from model.nn.network import BayesianCNN
from tests.support.fitting import CPU, TINY_WITH_OUTLIERS, generator, random_data, random_images
from training.distributed import World, process_group, world_from_environment
from training.fitting.augment import Distortion
from training.fitting.trainer import FitConfig, Fitter, TrainingSet

# A batch that two ranks cannot halve, and a KL term that outweighs the rest.
CONFIG = FitConfig(
    epochs=1, batch_size=17, beta=0.7, non_digits=7, non_digit_weight=0.3, hard_share=0.5,
    augmentation=None, imitated=0.5,
)  # fmt: skip


class ImageNoiseCNN(BayesianCNN):
    """A network whose noise for an image depends on that image alone."""

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        del generator
        return torch.cat([self._forward_one(image) for image in x.split(1)])

    def _forward_one(self, image: Tensor) -> Tensor:
        return super().forward_local(image, generator(int(1e6 * image.double().sum())))


def make_fitter(
    network: BayesianCNN, world: World, config: FitConfig = CONFIG
) -> Fitter[BayesianCNN]:
    data = TrainingSet(*random_data(51), random_images(51, 4), random_images(12, 5))
    return Fitter(network, config, data, world=world)


def gradient_of_a_step(world: World) -> dict[str, Tensor]:
    """Of 17 digits and 7 outliers on all ranks together."""
    fit = make_fitter(ImageNoiseCNN(TINY_WITH_OUTLIERS, generator=generator(3)), world)
    digits, outliers = torch.arange(17), torch.arange(2, 9)
    own = world.shard(digits)
    step = fit._step(fit._images[own], fit._labels[own], world.shard(outliers), n_digits=17)
    (mean,) = world.mean([step])
    found = {f"gradient.{name}": p.grad for name, p in fit.network.named_parameters()}
    return {
        **{name: gradient for name, gradient in found.items() if gradient is not None},
        "hardness": fit._hardness.clone(),
        "step": torch.tensor(mean),
    }


def two_epochs(world: World) -> dict[str, Tensor]:
    """The state of a fit before, between and after two epochs, with its usual noise."""
    config = replace(CONFIG, epochs=2, augmentation=Distortion())
    network = BayesianCNN(TINY_WITH_OUTLIERS, generator=generator(3))
    fit = make_fitter(network, world, config)
    found = {f"start.{name}": p.detach().clone() for name, p in network.named_parameters()}
    summary = fit.summarise(list(fit.run_epoch()))
    middle = {name: value.clone() for name, value in fit.state().items()}
    list(fit.run_epoch())
    again = make_fitter(BayesianCNN(TINY_WITH_OUTLIERS), world, config)
    again.restore(middle)
    list(again.run_epoch())
    found |= {f"end.{name}": value.clone() for name, value in fit.state().items()}
    found |= {f"resumed.{name}": value.clone() for name, value in again.state().items()}
    found["noise"] = torch.rand(8, generator=fit._own)
    found["summary"] = torch.tensor([summary.nll, summary.kl, summary.not_a_digit_nll])
    return found


def main() -> None:
    world = world_from_environment()
    torch.set_num_threads(1)
    with process_group(world, CPU):
        found = {**gradient_of_a_step(world), **two_epochs(world)}
    name = "single" if world.size == 1 else f"rank{world.rank}"
    safetensors.torch.save_file(found, Path(sys.argv[1]) / f"{name}.safetensors")


if __name__ == "__main__":
    main()
