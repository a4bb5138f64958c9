"""Data augmentation: small random distortions of a whole batch at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_KNOTS = 5


@dataclass(frozen=True)
class Distortion:
    """Random affine distortion with uniform parameters, and elastic deformation.

    Attributes:
        rotation_deg: Largest rotation in degrees, in either direction.
        scale: Largest relative change of width and, independently, of height.
        shear: Largest horizontal shear (shift in x per unit of y).
        shift_px: Largest shift in pixels, in x and y.
        elastic_px: Standard deviation in pixels of the displacement at 5×5 points of the image,
            interpolated between them; 0 for none.

    Source: Simard, Steinkraus and Platt (2003), "Best Practices for Convolutional Neural Networks
    Applied to Visual Document Analysis".
    """

    rotation_deg: float = 12.0
    scale: float = 0.12
    shear: float = 0.2
    shift_px: float = 2.0
    elastic_px: float = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Distort each image independently.

        Args:
            images: Images (B, 1, H, W).
            generator: Source of randomness, on the images' device.

        Returns:
            Images of the same shape, padded with background (0).
        """
        batch, _, _, side = images.shape

        def uniform(limit: float) -> Tensor:
            noise = torch.rand(batch, generator=generator, device=images.device)
            return (2 * noise - 1) * limit

        angle = uniform(math.radians(self.rotation_deg))
        x_scale, y_scale = 1 + uniform(self.scale), 1 + uniform(self.scale)
        shear = uniform(self.shear)
        # Grid coordinates run from -1 to 1, so a pixel is 2 / side of them.
        x_shift, y_shift = uniform(2 * self.shift_px / side), uniform(2 * self.shift_px / side)
        cos, sin = angle.cos(), angle.sin()
        rows = (
            torch.stack([cos / x_scale, (shear * cos - sin) / y_scale, x_shift], dim=1),
            torch.stack([sin / x_scale, (shear * sin + cos) / y_scale, y_shift], dim=1),
        )
        grid = functional.affine_grid(
            torch.stack(rows, dim=1), list(images.shape), align_corners=False
        )
        if self.elastic_px:
            knots = torch.randn(batch, 2, _KNOTS, _KNOTS, generator=generator, device=images.device)
            bent = functional.interpolate(
                knots * (self.elastic_px * 2 / side), side, mode="bicubic", align_corners=True
            )
            grid = grid + bent.permute(0, 2, 3, 1)
        return functional.grid_sample(images, grid, align_corners=False)
