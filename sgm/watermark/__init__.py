"""The invisible watermark that says a clip was generated: writing it, and reading it back, `python -m sgm.watermark`.

It is the `dwtDct` method of the invisible-watermark package (github.com/ShieldMnt/invisible-watermark), which reads
what this one writes and the other way round. In the U channel of 8-bit YUV, one level of the Haar wavelet halves each
side. Every 4x4 block of the low-pass band carries one bit of the message, block after block in reading order, the
message starting again after its last bit. The bit decides where the block's largest coefficient, its first one
excepted, lies within its quantisation step: at a quarter (0) or at three quarters (1). Despite its name the method
computes no DCT.
"""
