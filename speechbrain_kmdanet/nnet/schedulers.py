"""Schedules of the learning rate."""

from speechbrain.nnet import schedulers


class IntervalScheduler(schedulers.IntervalScheduler):
    """SpeechBrain's, with a rate that depends on the number of steps alone.

    Where several intervals begin at one step, SpeechBrain's takes one of them
    in each step that follows, but none of them after a checkpoint is loaded,
    so that a training that was interrupted goes on with other rates. Here the
    first of them counts. Such intervals come from few epochs.

    Arguments
    ---------
    intervals : list of dict
        The keys steps, the number of steps after which an interval begins,
        and lr, its learning rate.

    Example
    -------
    >>> import torch
    >>> parameter = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([parameter], lr=1.0)
    >>> scheduler = IntervalScheduler(
    ...     [{"steps": 2, "lr": 0.3}, {"steps": 2, "lr": 0.1}]
    ... )
    >>> [scheduler(optimizer)[1] for _ in range(3)]
    [1.0, 0.3, 0.3]
    """

    def _get_lr(self, current_lr: float) -> float:
        begun = [i for i in self.intervals if i["steps"] <= self.n_steps]
        if not begun:
            return current_lr
        return max(begun, key=lambda interval: interval["steps"])["lr"]
