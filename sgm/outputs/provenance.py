"""What a clip's files say about themselves: that they are synthetic, and what made them.

JPEG and WebP carry it as EXIF (ImageDescription, Software) and as XMP with IPTC's digital source type, MP4 and GIF as a
comment. The text depends only on program and version, so the same clip gives the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from PIL import Image

# IPTC's code for media made by a trained model: https://cv.iptc.org/newscodes/digitalsourcetype/
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

# EXIF 2.32, tags of the first image directory.
IMAGE_DESCRIPTION_TAG, SOFTWARE_TAG = 0x010E, 0x0131


@dataclass(frozen=True)
class Provenance:
    """Where a clip comes from: the program with its version, and the model's version."""

    software: str
    model: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Provenance:
        """The provenance of a record's clip."""
        program = record["program"]
        return cls(f"{program['name']} {program['version']}", record["parameters"]["version"])

    @property
    def description(self) -> str:
        """One sentence for people."""
        return f"Synthetic media: generated from an image by {self.model} with {self.software}"

    @property
    def comment(self) -> str:
        """The sentence with the code for programs, for files that only have room for text."""
        return f"{self.description}. DigitalSourceType: {DIGITAL_SOURCE_TYPE}"

    def exif(self) -> Image.Exif:
        """EXIF with description and software."""
        from PIL import Image

        exif = Image.Exif()
        exif[IMAGE_DESCRIPTION_TAG], exif[SOFTWARE_TAG] = self.description, self.software
        return exif

    def xmp(self) -> bytes:
        """An XMP packet with the digital source type, the program and the description."""
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
            ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
            f"<xmp:CreatorTool>{escape(self.software)}</xmp:CreatorTool>"
            f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(self.description)}</rdf:li></rdf:Alt>'
            "</dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
            '<?xpacket end="r"?>'
        ).encode()
