"""What a clip's files say of themselves, read with Pillow and PyAV, and with FFprobe and ExifTool where there are."""

import json
import shutil
import subprocess
from xml.etree import ElementTree

import av
import pytest
from PIL import Image

from sgm.outputs.pictures import write_frames, write_gif, write_webp
from sgm.outputs.provenance import Provenance
from sgm.outputs.video import write_video

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
DESCRIPTION = "Synthetic media: generated from an image by svd_tiny with sgm 1.2.3"


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_clip, provenance):
    folder = tmp_path_factory.mktemp("clip")
    write_video(folder / "clip.mp4", small_clip, 6, 95, provenance)
    write_webp(folder / "clip.webp", small_clip, 6, 95, provenance)
    write_gif(folder / "clip.gif", small_clip, 6, provenance)
    write_frames(folder, small_clip, 95, provenance)
    return folder


def test_it_follows_from_the_record():
    record = {"program": {"name": "sgm", "version": "7"}, "parameters": {"version": "sv3d_p"}}
    assert Provenance.of(record) == Provenance("sgm 7", "sv3d_p")


@pytest.mark.parametrize("name", ["0000.jpg", "0004.jpg", "clip.webp"])
def test_exif_and_xmp_as_pillow_reads_them(files, name):
    with Image.open(files / name) as image:
        exif = image.getexif()
        assert (exif[0x010E], exif[0x0131]) == (DESCRIPTION, "sgm 1.2.3")
        packet = ElementTree.fromstring(image.info["xmp"])
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    assert [element.text for element in packet.iter(iptc)] == [SOURCE_TYPE]
    assert DESCRIPTION in [element.text for element in packet.iter()]


def test_markup_in_names_stays_text(tmp_path, small_clip):
    write_frames(tmp_path, small_clip[:1], 95, Provenance("a<b>&c 1", "x</rdf:li>"))
    with Image.open(tmp_path / "0000.jpg") as image:
        texts = [element.text for element in ElementTree.fromstring(image.info["xmp"]).iter()]
    assert "a<b>&c 1" in texts


def test_comments_of_mp4_and_gif(files):
    with av.open(files / "clip.mp4") as container:
        assert container.metadata["comment"] == f"{DESCRIPTION}. DigitalSourceType: {SOURCE_TYPE}"
        assert container.metadata["encoder"] == "sgm 1.2.3"
    with Image.open(files / "clip.gif") as image:
        assert image.info["comment"].decode() == f"{DESCRIPTION}. DigitalSourceType: {SOURCE_TYPE}"


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_reads_the_same(files):
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_format", files / "clip.mp4"]
    tags = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["format"]["tags"]
    assert SOURCE_TYPE in tags["comment"]
    assert tags["encoder"] == "sgm 1.2.3"


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_same_and_finds_nothing_wrong(files):
    command = ["exiftool", "-json", "-G", "-validate", "-warning", files / "0000.jpg", files / "clip.webp"]
    done = subprocess.run([*command, "-all"], capture_output=True, check=True)
    for tags in json.loads(done.stdout):
        assert tags["XMP:DigitalSourceType"] == SOURCE_TYPE
        assert tags["EXIF:Software"] == tags["XMP:CreatorTool"] == "sgm 1.2.3"
        assert tags["EXIF:ImageDescription"] == tags["XMP:Description"] == DESCRIPTION
        assert "ExifTool:Error" not in tags
        assert "EXIF header" not in tags.get("ExifTool:Warning", "")
