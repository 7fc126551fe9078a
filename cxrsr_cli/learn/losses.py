"""What training makes small."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.learn.config import Loss


def training_loss(
    output: torch.Tensor, target: torch.Tensor, loss: Loss, fft_weight: float
) -> torch.Tensor:
    """Compare output and target.

    Parameters
    ----------
    output, target : torch.Tensor
        ``(N, 1, H, W)``, network values; compared in float32.
    loss : Loss
        Over pixels.
    fft_weight : float
        Weight of the mean absolute difference of the real and imaginary parts
        of their unnormalised Fourier transforms, as in SAFMN (Sun et al.,
        ICCV 2023), whose weight is 0.05; 0 for none.

    Returns
    -------
    torch.Tensor
        ``()``, float32.
    """
    difference = output.float() - target.float()
    pixels = F.l1_loss if loss is Loss.L1 else F.mse_loss
    total = pixels(difference, torch.zeros_like(difference))
    if fft_weight:
        # The transform is linear: that of the difference is the difference of both.
        total = total + fft_weight * torch.view_as_real(torch.fft.rfft2(difference)).abs().mean()
    return total
