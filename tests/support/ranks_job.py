"""What each rank does in the tests of several ranks, and a process alone to compare with.

`python -m torch.distributed.run --nproc-per-node 2 -m tests.support.ranks_job FOLDER` writes what
each rank found to FOLDER/rank0.safetensors and so on; without torchrun, to alone.safetensors.
"""

import sys
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from model.nn.network import BayesianCNN
from tests.support.checkpoints import TINY
from training.distributed import Ranks, joined, started_ranks
from training.fitting.augment import Distortion
from training.fitting.trainer import FitConfig, Fitter

CPU = torch.device("cpu")
KNOWS_OTHERS = replace(TINY, not_a_digit=True)
# A batch that two ranks cannot halve, and a KL term that outweighs the rest.
CONFIG = FitConfig(
    epochs=1, batch_size=17, beta=0.7, non_digits=7, non_digit_weight=0.3, hard_share=0.5,
    augmentation=None, imitated=0.5,
)  # fmt: skip


class NoiseOfPictures(BayesianCNN):
    """Every picture has noise of its own, the same whoever shows it and beside whatever."""

    def forward_local(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        del generator
        return torch.cat([self._alone(picture) for picture in x.split(1)])

    def _alone(self, picture: Tensor) -> Tensor:
        seed = int(1e6 * picture.double().sum())
        return super().forward_local(picture, torch.Generator().manual_seed(seed))


def pictures(n: int, seed: int) -> Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def make_fitter(
    network: BayesianCNN, ranks: Ranks, config: FitConfig = CONFIG
) -> Fitter[BayesianCNN]:
    labels = torch.randint(10, (51,), generator=torch.Generator().manual_seed(2))
    return Fitter(
        network,
        config,
        pictures(51, 1),
        labels,
        CPU,
        imitations=pictures(51, 4),
        non_digits=pictures(12, 5),
        ranks=ranks,
    )


def gradient_of_a_step(ranks: Ranks) -> dict[str, Tensor]:
    """Of 17 digits and 7 non-digits that all ranks show together."""
    fit = make_fitter(
        NoiseOfPictures(KNOWS_OTHERS, generator=torch.Generator().manual_seed(3)), ranks
    )
    digits, chosen = torch.arange(17), torch.arange(2, 9)
    own = ranks.part(digits)
    step = fit._step(fit._images[own], fit._labels[own], ranks.part(chosen), n_digits=17)
    (mean,) = ranks.mean([step])
    found = {f"gradient.{name}": p.grad for name, p in fit.network.named_parameters()}
    return {
        **{name: gradient for name, gradient in found.items() if gradient is not None},
        "hardness": fit._hardness.clone(),
        "step": torch.tensor(mean),
    }


def two_epochs(ranks: Ranks) -> dict[str, Tensor]:
    """The state of a fit before, between and after two epochs, with noise as it really is."""
    config = replace(CONFIG, epochs=2, augmentation=Distortion())
    network = BayesianCNN(KNOWS_OTHERS, generator=torch.Generator().manual_seed(3))
    fit = make_fitter(network, ranks, config)
    found = {f"start.{name}": p.detach().clone() for name, p in network.named_parameters()}
    summary = fit.summarise(list(fit.run_epoch()))
    middle = {name: value.clone() for name, value in fit.state().items()}
    list(fit.run_epoch())
    again = make_fitter(BayesianCNN(KNOWS_OTHERS), ranks, config)
    again.restore(middle)
    list(again.run_epoch())
    found |= {f"end.{name}": value.clone() for name, value in fit.state().items()}
    found |= {f"continued.{name}": value.clone() for name, value in again.state().items()}
    found["noise"] = torch.rand(8, generator=fit._own)
    found["summary"] = torch.tensor([summary.nll, summary.kl, summary.not_a_digit_nll])
    return found


def main() -> None:
    ranks = started_ranks()
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        found = {**gradient_of_a_step(ranks), **two_epochs(ranks)}
    name = "alone" if ranks.count == 1 else f"rank{ranks.rank}"
    safetensors.torch.save_file(found, Path(sys.argv[1]) / f"{name}.safetensors")


if __name__ == "__main__":
    main()
