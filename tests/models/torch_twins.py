"""The networks of `fastdl.models` in plain torch.nn, their parts named as torchvision names them."""

from collections import OrderedDict

import torch
from torch import nn


def lenet5(classes=10, channels=1):
    layers = {
        "c1": nn.Conv2d(channels, 6, 5, padding=2),
        "tanh1": nn.Tanh(),
        "s2": nn.AvgPool2d(2),
        "c3": nn.Conv2d(6, 16, 5),
        "tanh3": nn.Tanh(),
        "s4": nn.AvgPool2d(2),
        "flatten": nn.Flatten(),
        "c5": nn.Linear(400, 120),
        "tanh5": nn.Tanh(),
        "f6": nn.Linear(120, 84),
        "tanh6": nn.Tanh(),
        "output": nn.Linear(84, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def convolution(channels, filters):
    return (
        nn.Conv2d(channels, filters, 3, padding=1, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
    )


def mnist_cnn(classes=10, channels=1):
    return nn.Sequential(
        *convolution(channels, 32),
        nn.MaxPool2d(2),
        *convolution(32, 64),
        nn.MaxPool2d(2),
        *convolution(64, 64),
        *convolution(64, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(576, classes),
    )


def gap_net(classes=10, channels=3):
    return nn.Sequential(
        *convolution(channels, 32),
        nn.MaxPool2d(2),
        *convolution(32, 64),
        nn.MaxPool2d(2),
        *convolution(64, 128),
        nn.Conv2d(128, classes, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class ThreeParts(nn.Module):
    """Features, a pool, and a classifier, as torchvision's AlexNet and VGG have them."""

    def __init__(self, features, avgpool, classifier):
        super().__init__()
        self.features, self.avgpool, self.classifier = features, avgpool, classifier

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def alexnet_classifier(features, width, classes):
    return nn.Sequential(
        nn.Dropout(0.0),
        nn.Linear(features, width),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def alexnet(classes=1000, channels=3):
    features = nn.Sequential(
        nn.Conv2d(channels, 64, kernel_size=11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
    )
    return ThreeParts(
        features, nn.AdaptiveAvgPool2d((6, 6)), alexnet_classifier(9216, 4096, classes)
    )


def alexnet_32(classes=10, channels=3):
    features = nn.Sequential(
        nn.Conv2d(channels, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return ThreeParts(features, nn.Identity(), alexnet_classifier(1024, 1024, classes))


VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG16 = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M")


def vgg_features(configuration, channels, normalise):
    layers = []
    for entry in configuration:
        if entry == "M":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            continue
        if normalise:
            layers.extend(convolution(channels, entry))
        else:
            layers.extend((nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()))
        channels = entry
    return nn.Sequential(*layers)


def vgg(configuration, classes, channels):
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(4096, classes),
    )
    features = vgg_features(configuration, channels, False)
    return ThreeParts(features, nn.AdaptiveAvgPool2d((7, 7)), classifier)


def vgg11(classes=1000, channels=3):
    return vgg(VGG11, classes, channels)


def vgg16(classes=1000, channels=3):
    return vgg(VGG16, classes, channels)


def vgg11_32(classes=10, channels=3):
    features = vgg_features(VGG11, channels, True)
    return ThreeParts(features, nn.AdaptiveAvgPool2d(1), nn.Linear(512, classes))


def vgg16_32(classes=10, channels=3):
    features = vgg_features(VGG16, channels, True)
    return ThreeParts(features, nn.AdaptiveAvgPool2d(1), nn.Linear(512, classes))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x):
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, channels, width, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x):
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, block, stem, widths, counts, classes):
        super().__init__()
        self.conv1, self.maxpool = stem
        channels = self.conv1.out_channels
        self.bn1 = nn.BatchNorm2d(channels)
        for number, (width, count) in enumerate(zip(widths, counts, strict=True), start=1):
            blocks = []
            for position in range(count):
                stride = 2 if number > 1 and position == 0 else 1
                out, downsample = width * block.expansion, None
                if stride != 1 or channels != out:
                    downsample = nn.Sequential(
                        nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
                    )
                blocks.append(block(channels, width, stride, downsample))
                channels = out
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.stages = len(counts)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def imagenet_stem(channels):
    return nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False), nn.MaxPool2d(3, 2, padding=1)


def resnet18(classes=1000, channels=3):
    widths = (64, 128, 256, 512)
    return ResNet(BasicBlock, imagenet_stem(channels), widths, (2, 2, 2, 2), classes)


def resnet50(classes=1000, channels=3):
    widths = (64, 128, 256, 512)
    return ResNet(Bottleneck, imagenet_stem(channels), widths, (3, 4, 6, 3), classes)


def resnet20(classes=10, channels=3):
    stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.Identity()
    return ResNet(BasicBlock, stem, (16, 32, 64), (3, 3, 3), classes)


class Shortcut(nn.Module):
    """Its parameters are the body's, by the body's names."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


def resnet9(classes=10, channels=3):
    def block(channels, width):
        return (
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

    def residual(width):
        return Shortcut(nn.Sequential(*block(width, width), *block(width, width)))

    def halved(width):
        return nn.Sequential(*block(width // 2, width), nn.MaxPool2d(2))

    stages = OrderedDict(
        prep=nn.Sequential(*block(channels, 32)),
        layer1=halved(64),
        res1=residual(64),
        layer2=halved(128),
        layer3=halved(256),
        res3=residual(256),
        pool=nn.MaxPool2d(4),
        flatten=nn.Flatten(),
        fc=nn.Linear(256, classes),
    )
    return nn.Sequential(stages)
