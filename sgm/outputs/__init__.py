"""What a clip becomes on disk: watermark, video, frames and the record of how it was made."""
