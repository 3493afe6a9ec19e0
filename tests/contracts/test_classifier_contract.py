"""The requirements of teachers and students, asked of every kind of classifier."""

import pytest
import torch
from safetensors.torch import load_model, save_model

from d4m.classifiers.predict import penultimate_features, predict_logits
from d4m.classifiers.registry import CLASSIFIERS, build_classifier
from d4m.errors import ClassifierError
from d4m.settings import ClassifierSettings

CLASSES = 7


def _pixels(channels, size_px, images=5):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(images, channels, size_px, size_px, generator=generator) * 2 - 1


class ClassifierContract:
    """A classifier built by name, for small grey and colour images."""

    settings: ClassifierSettings
    smallest_px = 8

    def build(self, channels=1, size_px=None, seed=0):
        model = build_classifier(
            self.settings,
            channels=channels,
            size_px=size_px or self.size_px,
            classes=CLASSES,
            seed=seed,
        )
        return model.eval()

    @property
    def size_px(self):
        return max(16, self.smallest_px)

    @pytest.mark.parametrize(("channels", "size_px"), [(1, 8), (3, 8), (1, 28), (3, 32)])
    def test_it_takes_images_of_these_channels_and_sizes(self, channels, size_px):
        size_px = max(size_px, self.smallest_px)
        logits = predict_logits(self.build(channels, size_px), _pixels(channels, size_px))
        assert logits.shape == (5, CLASSES)
        assert torch.isfinite(logits).all()
        assert logits.std(dim=0).min() > 0  # different images have different logits

    def test_a_batch_can_be_trained_on(self):
        model, pixels, class_ids = (
            self.build().train(),
            _pixels(1, self.size_px, images=8),
            torch.arange(8) % 4,
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = list[float]()
        for _ in range(30):
            loss = torch.nn.functional.cross_entropy(model(pixels), class_ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.75 * losses[0]

    def test_logits_are_the_head_of_the_features(self):
        model, pixels = self.build(), _pixels(1, self.size_px)
        with torch.inference_mode():
            assert torch.equal(model.forward_head(model.forward_features(pixels)), model(pixels))

    def test_the_last_layer_is_linear_in_the_penultimate_features(self):
        """Solving for the last layer on many images leaves no error."""
        model, pixels = self.build(), _pixels(1, self.size_px, images=700)
        features = penultimate_features(model, pixels).double()
        features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
        logits = predict_logits(model, pixels).double()
        solved = torch.linalg.lstsq(features, logits, driver="gelsd").solution
        assert torch.allclose(features @ solved, logits, atol=1e-4)

    def test_an_image_has_the_same_logits_alone_and_in_a_batch(self):
        model, pixels = self.build(), _pixels(1, self.size_px)
        alone = torch.cat([predict_logits(model, pixels[row : row + 1]) for row in range(5)])
        assert torch.allclose(alone, predict_logits(model, pixels), atol=1e-5)

    def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone(self):
        before = torch.get_rng_state()
        first, again, other = self.build(seed=3), self.build(seed=3), self.build(seed=4)
        assert torch.equal(torch.get_rng_state(), before)
        pixels = _pixels(1, self.size_px)
        assert torch.equal(predict_logits(first, pixels), predict_logits(again, pixels))
        assert not torch.equal(predict_logits(first, pixels), predict_logits(other, pixels))

    def test_stored_weights_give_the_same_logits_again(self, tmp_path):
        model, other = self.build(seed=1), self.build(seed=2)
        save_model(model, str(tmp_path / "model.safetensors"))
        load_model(other, str(tmp_path / "model.safetensors"))
        pixels = _pixels(1, self.size_px)
        assert torch.equal(predict_logits(other, pixels), predict_logits(model, pixels))

    def test_unknown_options_are_refused(self):
        settings = self.settings.model_copy(update={"options": {"no_such_option": 3}})
        with pytest.raises(ClassifierError, match="no_such_option"):
            build_classifier(settings, channels=1, size_px=self.size_px, classes=CLASSES, seed=0)


class TestConvNet(ClassifierContract):
    settings = ClassifierSettings()

    def test_smaller_images_than_it_can_halve_are_refused(self):
        with pytest.raises(ClassifierError, match="wanted at least 8 px, found 7"):
            self.build(size_px=7)


class TestConvNet4(ClassifierContract):
    settings = ClassifierSettings(architecture="convnet4", options={"width": 16, "norm": "batch"})
    smallest_px = 16

    def test_smaller_images_than_it_can_halve_are_refused(self):
        with pytest.raises(ClassifierError, match="four times: wanted at least 16 px, found 15"):
            self.build(size_px=15)


class TestConvNet5(ClassifierContract):
    settings = ClassifierSettings(architecture="convnet5", options={"width": 16, "norm": "layer"})
    smallest_px = 32


class TestConvNet6(ClassifierContract):
    settings = ClassifierSettings(architecture="convnet6", options={"width": 16, "norm": "group"})
    smallest_px = 64


class TestResNetAP10(ClassifierContract):
    settings = ClassifierSettings(architecture="resnet_ap10", options={"width": 8})
    smallest_px = 16

    def test_images_of_which_a_norm_would_see_single_pixels_are_refused(self):
        with pytest.raises(ClassifierError, match="wanted at least 16 px, found 15"):
            self.build(size_px=15)


class TestResNet18Instance(ClassifierContract):
    settings = ClassifierSettings(architecture="resnet18_instance", options={"width": 8})
    smallest_px = 16


class TestResNet50Instance(ClassifierContract):
    settings = ClassifierSettings(architecture="resnet50_instance", options={"width": 4})
    smallest_px = 32  # norms of 2 x 2 maps enlarge rounding, in 53 layers to 1e-4


class TestTimmConvolutional(ClassifierContract):
    settings = ClassifierSettings(architecture="test_resnet")


class TestTimmTransformer(ClassifierContract):
    settings = ClassifierSettings(architecture="test_vit")


def test_every_registered_classifier_has_a_contract_test():
    tested = {kind.settings.architecture for kind in ClassifierContract.__subclasses__()}
    assert CLASSIFIERS.keys() <= tested
