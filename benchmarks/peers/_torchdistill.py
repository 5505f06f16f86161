"""torchdistill: a `DistillationBox` as its examples set one up, with Hinton's loss."""

import time

import torch
from torch import nn
from torch.utils.data import RandomSampler
from torchdistill.core.distillation import DistillationBox

from benchmarks.peers._work import Crops, given, report


class AsTeacher(nn.Module):
    """Takes what the student takes."""

    def __init__(self, backbone: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", mean.view(1, -1, 1, 1) / 255)
        self.register_buffer("std", std.view(1, -1, 1, 1) / 255)

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        return self.backbone((shown * 0.5 + 0.5 - self.mean) / self.std)


work = given()
student = work.student.backbone
teacher = AsTeacher(work.teacher.backbone, work.teacher.mean, work.teacher.std).eval()
steps = -(-len(work.records) // work.batch_size)
box = DistillationBox(
    teacher,
    student,
    {"train": Crops(work)},
    {
        "num_epochs": work.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "requires_supp": True,
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": work.batch_size, "num_workers": 2, "persistent_workers": True},
        },
        "teacher": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": work.lr, "weight_decay": work.weight_decay}},
        "scheduler": {
            "key": "OneCycleLR",
            "kwargs": {"max_lr": work.lr, "total_steps": steps * work.epochs + 1},
            "scheduling_step": 1,
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {
                            "key": "KDLoss",
                            "kwargs": {
                                "student_module_path": ".",
                                "student_module_io": "output",
                                "teacher_module_path": ".",
                                "teacher_module_io": "output",
                                "temperature": 1.0,
                                "alpha": 0.0,
                            },
                        },
                        "weight": 1.0,
                    }
                }
            },
        },
    },
    torch.device("cpu"),
    None,
    False,
    1,
)
seconds = []
for epoch in range(work.epochs):
    start = time.monotonic()
    box.pre_epoch_process(epoch=epoch)
    for shown, targets, extra in box.train_data_loader:
        box.pre_forward_process()
        loss = box.forward_process(shown, targets, extra)
        box.post_forward_process(loss=loss)
    box.post_epoch_process()
    seconds.append(time.monotonic() - start)
report(work, student, seconds)
