import logging
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sgm.errors import UserError
from sgm.inputs import object as object_module
from sgm.inputs.image import read_image
from sgm.inputs.object import cut_out, frame_object

DATA = Path(__file__).parents[1] / "reference"
CASES = Path(__file__).parents[1] / "cases"


def photo(size=(1000, 500), mode="RGB"):
    """A dark red ball on light ground."""
    image = Image.new("RGB", size, (250, 245, 240))
    radius, across, down = min(size) // 4, size[0] // 2, size[1] // 2
    ImageDraw.Draw(image).ellipse((across - radius, down - radius, across + radius, down + radius), (120, 20, 30))
    return image.convert(mode)


def block(canvas, box, colour=(200, 30, 60, 255)):
    image = Image.new("RGBA", canvas, (9, 9, 9, 0))
    image.paste(colour, box)
    return image


def dark_box(image):
    """Bounding box of what is less than half as far from the block's colour as white is."""
    return Image.fromarray((np.asarray(image).min(axis=2) < 142).astype(np.uint8)).getbbox()


@pytest.fixture
def model_home(monkeypatch, tmp_path):
    """An empty folder for rembg's model, and no session left from another test."""
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("MODEL_CHECKSUM_DISABLED", "1")
    object_module._u2net_session.cache_clear()
    yield tmp_path
    object_module._u2net_session.cache_clear()


@pytest.fixture
def rembg(monkeypatch, model_home):
    """A rembg that takes the left half of the picture for the object, and notes its calls."""
    fake = types.ModuleType("rembg")
    fake.sessions, fake.removals = [], []

    def new_session(name):
        fake.sessions.append(name)
        return f"session of {name}"

    def remove(image, **options):
        fake.removals.append((image.copy(), options))
        image = image.convert("RGBA")
        image.paste((0, 0, 0, 0), (image.width // 2, 0, image.width, image.height))
        return image

    fake.new_session, fake.remove = new_session, remove
    monkeypatch.setitem(sys.modules, "rembg", fake)
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    return fake


@pytest.mark.parametrize(("ratio", "name"), [(None, "no_ratio"), (0.8, "ratio_0.8")])
def test_framing_agrees_with_the_original(ratio, name):
    with Image.open(DATA / "sv3d_object_in.png") as image, Image.open(DATA / f"sv3d_object_out_{name}.png") as golden:
        ours = np.asarray(frame_object(image, 576, ratio), dtype=int)
        assert np.abs(ours - np.asarray(golden, dtype=int)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60), (31, 31), (100, 8)])
def test_objects_of_any_shape_are_centred_at_the_ratio_asked_for(width, height):
    image = block((200, 120), (7, 11, 7 + width, 11 + height))
    framed = frame_object(image, 100, 0.5)
    assert framed.size == (100, 100)
    left, top, right, bottom = dark_box(framed)
    assert max(right - left, bottom - top) == pytest.approx(50, abs=1)
    assert (left + right) / 2 == pytest.approx(50, abs=1)
    assert (top + bottom) / 2 == pytest.approx(50, abs=1)


def test_without_a_ratio_the_square_takes_the_images_height():
    left, top, right, bottom = dark_box(frame_object(block((300, 200), (0, 0, 50, 100)), 200))
    assert (left, top, right, bottom) == pytest.approx((75, 50, 125, 150), abs=1)


def test_without_a_ratio_an_object_wider_than_the_image_is_high_stays_whole():
    left, top, right, bottom = dark_box(frame_object(block((400, 100), (50, 40, 350, 60)), 300))
    assert (left, right) == pytest.approx((0, 300), abs=1)
    assert bottom - top == pytest.approx(20, abs=2)


def test_a_ratio_above_one_shows_the_middle():
    image = block((100, 100), (0, 0, 100, 100))
    image.paste((0, 0, 255, 255), (25, 25, 75, 75))
    framed = np.asarray(frame_object(image, 64, 2.0))
    assert (framed == (0, 0, 255)).all()


def test_transparency_goes_over_white():
    framed = np.asarray(frame_object(block((64, 64), (0, 0, 64, 64), (0, 100, 200, 102)), 64))
    assert (framed == (153, 193, 233)).all()  # 0.4 of the colour and 0.6 of white


def test_an_image_transparent_everywhere_is_refused():
    with pytest.raises(UserError, match="no object was found"):
        frame_object(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), 64)


@pytest.mark.parametrize("ratio", [0, -0.5, float("nan"), float("inf"), 1e-9])
def test_ratios_that_make_no_square_are_refused(ratio):
    with pytest.raises(UserError, match="image_frame_ratio"):
        frame_object(block((64, 64), (0, 0, 32, 32)), 64, ratio)


def test_an_absurdly_long_object_is_refused():
    long = Image.new("RGBA", (40000, 16), (255, 0, 0, 128))
    with pytest.raises(UserError, match="up to 16384 pixels a side, not 40000"):
        frame_object(long, 64)


def test_a_huge_ratio_still_shows_something():
    assert (np.asarray(frame_object(block((64, 64), (0, 0, 32, 32)), 8, 1e6)) == (200, 30, 60)).all()


def test_real_transparency_is_used_as_it_is(rembg):
    image = block((2000, 1000), (0, 0, 10, 10))
    assert cut_out(image) is image
    alpha = Image.new("L", (30, 20), 255)
    alpha.paste(0, (0, 0, 3, 3))
    grey = Image.merge("LA", (Image.new("L", (30, 20), 77), alpha))
    assert cut_out(grey).getpixel((0, 0)) == (77, 77, 77, 0)
    assert rembg.sessions == []


def test_what_is_nearly_opaque_everywhere_has_a_background_to_remove(rembg):
    nearly = Image.merge("RGBA", (*photo().convert("RGB").split(), Image.new("L", photo().size, 254)))
    nearly.putpixel((5, 5), (0, 0, 0, 0))  # a damaged pixel is no background either
    cut_out(nearly)
    assert len(rembg.sessions) == 1


def rounded(radius, corners=(True, True, True, True)):
    """An opaque picture of 1000x500 pixels, of which some corners are rounded: alpha is drawn four times as large."""
    alpha = Image.new("L", (4000, 2000), 0)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, 3999, 1999), 4 * radius, 255, corners=corners)
    image = photo()
    image.putalpha(alpha.resize(image.size, Image.Resampling.BOX))
    return image


def test_a_screenshots_rounded_corners_are_no_background(rembg):
    for image in (rounded(14), rounded(14, (True, True, False, False)), rounded(30)):
        assert np.mean(np.asarray(image.getchannel("A")) < 128) > 0.0001
        assert cut_out(image).size == (768, 384)
    assert len(rembg.removals) == 3


def test_round_objects_and_single_clear_pixels_are_cut_out_already(rembg):
    one_corner = Image.new("RGBA", (64, 64), "red")
    one_corner.putpixel((0, 0), (0, 0, 0, 0))
    a_pixel_more = rounded(14)
    a_pixel_more.putpixel((500, 0), (0, 0, 0, 0))
    for image in (rounded(60), rounded(250), a_pixel_more, one_corner):
        assert cut_out(image) is image
    assert rembg.sessions == []


def test_faint_dust_and_specks_do_not_move_the_object():
    def filled(name):
        framed = np.asarray(frame_object(read_image(CASES / name), 256, 0.8))
        rows, columns = np.nonzero((framed < 250).any(axis=-1))
        return rows.min(), rows.max(), columns.min(), columns.max()

    assert filled("disc_faint_dust.png") == filled("disc.png")
    box = filled("disc.png")
    assert abs(box[1] - box[0] - 0.8 * 256) < 12
    speck = read_image(CASES / "disc.png")
    clean = frame_object(speck, 256, 0.8)
    speck.putpixel((0, 0), (0, 0, 0, 255))
    assert np.array_equal(frame_object(speck, 256, 0.8), clean)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "P"])
def test_opaque_images_go_through_background_removal(rembg, mode):
    image = photo(mode=mode)
    cut = cut_out(image)
    assert (cut.mode, cut.size) == ("RGBA", (768, 384))
    assert cut.getchannel("A").getbbox() == (0, 0, 384, 384)
    ((seen, options),) = rembg.removals
    assert (seen.mode, seen.size) == ("RGB", (768, 384))
    assert options == {"session": "session of u2net", "alpha_matting": True}
    assert image.size == (1000, 500), "the caller's image was shrunk"


def test_the_model_is_loaded_once_for_many_images(rembg):
    for _ in range(3):
        cut_out(photo())
    assert rembg.sessions == ["u2net"]


def test_fetching_the_model_is_announced_and_only_then(rembg, model_home, caplog):
    with caplog.at_level(logging.WARNING):
        cut_out(photo())
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == ["Fetching U2-Net"]

    caplog.clear()
    object_module._u2net_session.cache_clear()
    (model_home / "u2net.onnx").touch()
    cut_out(photo())
    assert caplog.records == []


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("Max retries exceeded with url: " + "/u2net.onnx " * 100),
        PermissionError(13, "Permission denied"),
        ValueError("MD5 hash of downloaded file (u2net.onnx) does not match"),
        type("InvalidProtobuf", (Exception,), {})("Protobuf parsing failed."),  # onnxruntime's errors have no base
    ],
)
def test_a_model_that_cannot_be_had_says_what_to_do(rembg, model_home, failure):
    def new_session(name):
        raise failure

    rembg.new_session = new_session
    with pytest.raises(UserError) as error:
        cut_out(photo())
    message = str(error.value)
    assert type(failure).__name__ in message
    assert str(model_home) in message
    assert "background is transparent already" in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize("missing", ["rembg", "onnxruntime"])
def test_a_missing_package_says_what_to_install(rembg, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)  # makes its import fail
    with pytest.raises(UserError, match=rf'{missing} is missing.*pip install "rembg\[cpu\]"'):
        cut_out(photo())


def test_onnxruntime_is_told_not_to_report_home(rembg, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    cut_out(photo())
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_importing_the_inputs_is_light():
    code = """if True:
        import sys
        import sgm.inputs.image, sgm.inputs.object, sgm.inputs.orbit
        print({"torch", "rembg", "onnxruntime", "cv2", "scipy"} & set(sys.modules))
    """
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True).stdout == "set()\n"


def test_the_real_rembg_cuts_the_object_out(model_home):
    """With a network of two layers in U2-Net's place, for which whatever is dark is the object."""
    shutil.copy(DATA / "darkness_as_u2net.onnx", model_home / "u2net.onnx")
    cut = cut_out(photo((300, 200)))
    alpha = np.asarray(cut.getchannel("A"))
    assert (cut.mode, cut.size) == ("RGBA", (300, 200))
    assert alpha[90:110, 140:160].min() > 200
    assert alpha[:20].max() < 50
