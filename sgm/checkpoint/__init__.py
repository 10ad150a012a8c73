"""Files with weights: finding and fetching them, reading them strictly, saying what they are, converting them."""
