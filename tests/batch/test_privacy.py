"""What a photograph says of its owner reaches no output."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

SECRETS = (b"Secret Maker", b"Secret Artist", b"Secret comment", b"SECRETSERIAL")


@pytest.mark.parametrize("folder", [False, True])
def test_exif_and_gps_of_the_input_reach_no_output(tmp_path, run_here, out, folder):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Artist] = "Secret Maker", "Secret Artist"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "SECRETSERIAL"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 51.0, 29.0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    photo = tmp_path / "in" / "photo.jpg"
    photo.parent.mkdir()
    Image.fromarray(pixels).save(photo, exif=exif, comment=b"Secret comment")
    assert all(secret in photo.read_bytes() for secret in SECRETS)

    assert run_here(photo.parent if folder else photo, "--formats", "mp4,gif,webp,frames") == 0

    files = [path for path in out.rglob("*") if path.is_file()]
    assert {".mp4", ".gif", ".webp", ".jpg", ".json"} <= {path.suffix for path in files}
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret in content], path
        if path.suffix in (".jpg", ".webp"):
            with Image.open(io.BytesIO(content)) as picture:
                assert not picture.getexif().get_ifd(ExifTags.IFD.GPSInfo), path
