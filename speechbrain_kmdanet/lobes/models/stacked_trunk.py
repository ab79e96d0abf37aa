"""Two trunks, one on the other: the second corrects the embeddings of the first.

The first may be trained before: a separator that has its weights alone is where
the training of both starts.
"""

from typing import Any

from torch import Tensor, nn

from speechbrain_kmdanet.lobes.models.dual_path_trunk import DualPathNet


class StackedNet(nn.Module):
    """Embeds every bin by a trunk, and corrects that by another.

    The second is told the directions of the first's embeddings, and what it
    finds is added to them; at the beginning that is nothing.

    Arguments
    ---------
    first : nn.Module
        Trunk, see EmbeddingNet.
    second : DualPathNet
        Trunk of the same number of outputs, with as many hints.
    frozen : bool
        Whether the first stays as it is when the second is trained.

    Example
    -------
    >>> import torch
    >>> from speechbrain_kmdanet.lobes.models.embedding import EmbeddingNet
    >>> first = EmbeddingNet(num_bins=33, embedding_dim=4, hidden_size=16)
    >>> sizes = dict(channels=8, hidden_size=8, num_hints=4)
    >>> net = StackedNet(first, DualPathNet(33, 4, **sizes)).eval()
    >>> spectrum = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> torch.equal(net(spectrum), first(spectrum))
    True
    """

    def __init__(
        self, first: nn.Module, second: DualPathNet, frozen: bool = False
    ) -> None:
        super().__init__()
        self.embedding_dim = second.embedding_dim
        self.first = first
        self.second = second
        self.frozen = frozen
        first.requires_grad_(not frozen)
        nn.init.zeros_(second.decoder.weight)
        nn.init.zeros_(second.decoder.bias)  # type: ignore[arg-type]
        self.register_load_state_dict_pre_hook(_start_from_the_first)

    def train(self, mode: bool = True) -> "StackedNet":
        """Sets the mode; the statistics of what is frozen stay, too.

        Arguments
        ---------
        mode : bool
            Whether the network is trained.

        Returns
        -------
        StackedNet
            The network.
        """
        super().train(mode)
        self.first.train(mode and not self.frozen)
        return self

    def forward(
        self, spectrum: Tensor, num_frames: Tensor | None = None
    ) -> Tensor:
        """Embeds the bins, see :meth:`.embedding.EmbeddingNet.forward`."""
        embeddings = self.first(spectrum, num_frames)  # [B, T · F, D]
        hints = nn.functional.normalize(embeddings, dim=2)
        return embeddings + self.second(spectrum, num_frames, hints)


def _start_from_the_first(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Takes weights of the first trunk alone, and those there are of the other.

    A hook of PyTorch's load_state_dict.
    """
    names = [name for name in state if name.startswith(prefix)]
    parts = {name[len(prefix) :].split(".")[0] for name in names}
    if not names or parts & {"first", "second"}:
        return
    for name in names:
        state[f"{prefix}first.{name[len(prefix) :]}"] = state.pop(name)
    for name, value in module.state_dict().items():
        if name.startswith("second."):
            state[prefix + name] = value
