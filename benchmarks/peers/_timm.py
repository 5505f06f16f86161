"""timm's own distillation: `timm.task.LogitDistillationTask` with timm's loader, optimizer and schedule."""

import time

import torch
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.task import LogitDistillationTask
from timm.task.distillation import DistillationTeacher

from benchmarks.peers._work import Crops, given, report

work = given()
student, teacher = work.student.backbone, work.teacher.backbone
for network, module in ((work.student, student), (work.teacher, teacher)):
    mean, std = (tuple((values / 255).expand(3).tolist()) for values in (network.mean, network.std))
    module.pretrained_cfg = {**module.pretrained_cfg, "mean": mean, "std": std}
task = LogitDistillationTask(
    student, DistillationTeacher(teacher), torch.nn.CrossEntropyLoss(), task_loss_weight=0.0, verbose=False
)
images = Crops(work)
size, own = work.student.image_size, images.transform
loader = create_loader(
    images,
    size,
    work.batch_size,
    is_training=True,
    num_workers=2,
    use_prefetcher=False,
    device=torch.device("cpu"),
)
images.transform = own  # `create_loader` puts its own in place, with colour changes and other crops
optimizer = create_optimizer_v2(student, opt="adamw", lr=work.lr, weight_decay=work.weight_decay)
schedule = CosineLRScheduler(optimizer, work.epochs, warmup_t=min(2, work.epochs - 1), warmup_lr_init=work.lr / 100)
task.train()
seconds = []
for epoch in range(work.epochs):
    start = time.monotonic()
    schedule.step(epoch)
    for shown, target in loader:
        optimizer.zero_grad()
        task(shown, target)["loss"].backward()
        optimizer.step()
    seconds.append(time.monotonic() - start)
report(work, student, seconds)
