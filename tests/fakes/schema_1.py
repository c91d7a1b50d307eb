"""A state.db of schema 1, byte for byte as the last agent of that schema wrote it.

It holds ``kws`` 7 (6 before it) on ``door``, 7 on ``window``, two bundles set aside, a
note of the trust folder, the board's name, and a job that had come to COMMITTING with
version 8; the bytes of each version are those of ``tests.fakes.stored.content``.
"""

import base64
import zlib

BOARD = "f80c5a705c7b32818e75679aa46ed825"
_PACKED = """
eNrt3d9O21YcB3A7AULQIEyoiriq692AFiH/t4NUbYVFlJXCxlJtvVl6bB+DG2NntlNoERdsaI+wd9j9
7nazB1jfYNJeYNouu93tF7tLy0SrSUxVW30/ik/ic8jPPx/n5meT+LNPt8KcS0GSHrBc0oV5QRSFDyVJ
EIQ6LTPCM5O0TDy3Lj5dhG788HPhYnVhxRNnG38K9dl7QuN+4/HcL43rc2tz38/+NNekLgAAAAAAgLfG
l/Vac2FBPH0vZ27E7ycuPWbWdzs3uh2pe2NtqyNRh7QU+tLmdrez0dmVPtndvH1j9650q3NXWr/ZWb9V
jF6X1OVW8bdrWztr0vZOV9q+s7W1fKdWazab4mm9iB8nOc+KZvrcNoouaanPH0rdzhfd57fRkh6waMj/
FXZ5eqp5vSkKYezzo+yriGrEHhvmSbHeK8L11OKpzidrzatXxdPFIoOM5z2Whf6zF1PnMhl3S0vZPtNM
64KEUs6yJC4HxhmpU1PNztUXZTQO21PHL2u9aq25uPhPZkGUJGlWthPncir7pKWDxOfRRRPE0yykhP45
QuOc3p+Yan6w+KKcyrA9tXyeZGJ5pK6V8xQleVY0lfPzM+qSlgbhgEdhzC/Ihnl5+KA8Xi1pkPIHYTLM
itXl5crLjloRmuZn9FSlj+b06PM5S0vlnV+F2T+oAQAAAAAAeHN9PVudXDybFw6pBEoOj+WixJNX5f5h
Jrfkp4WdvGq35LIapSFb8z3XVTzfayuqbdmOGwQuNwyuarytWnbb4qauu6pn+5pm6q4SBJpmGA7zHMe2
uEFxs/ARl1dNRVFoGywNWZxT4DDOHRrkR9yjmiyVV49lHu9RkUdjo1ItzWm0z9OYRxl1HcXxgHl96sv3
qSL2qU9tPX1Hb5y5TOO0S3yP5RQnHkbRSbFfYRByv8dou6rdVkor5snZXGXqytn82bxPNSmm44UzYD03
A66lmqar6q7u+Jbn63bATcsyNM9vc8XQbEdVmWXonkaB27zt2YGv2IZp256pWK6lv9YzMLrAX2n8JjSe
UAMAAAAAAAAAb7yZ6qJYngirTleviKNTQJXR9X+x8YTqf8wPAAAAAAAAwFumJlYXxP5hVpsp6v+/BHoA
AAAAAAAAwNtmqrpQ7x9mxff/G/eFxg/UAAAAAAAAAMAl3axMnM5e8S5pn8V7H4sUadG9pL0k8nlcfv9/
KDR+pAYAAAAAAAAA/j8dqt/Fy54JqHxEUeqXPQtQXv//Tmg8pgYAAAAAAAAAXiGzUt2w8nSY5Svl3QNX
FEVVNU3XDcM0Lcu2j+U8PODnfsxfOVHF6vJWlicpX3ETlvq90A8cxTOZrZie7eqaozrcNi27zZhhcd/R
zPL6/89C43dqAAAAAAAAAOC1d626Ib70pEHl3epy/fz5geL3/+d2BHoAAAAAAAAA/FffrIgTwrf3juVB
OOBReSv70X3m5JZ8kPg8otX+YSYXd6Qv71fvtORsn2mmRUPcNFQjMK22xm1P1Q1V44pi+3bguLYTaKbm
c8s3A7fNuBNYPPBtV9FUq62buu85vkZxB/ssG210fef27c1ud3N7gzpZnvODQZ7Jq2pLDuMsZ1HEfXn1
+BUllYWPKCdTURTaBktDFucUOIxzhwb5EfeGVJOP0uHxXjlnUZjzNKfRPk9jHlHm8lEcD5jXp758P+XM
L/emfEdvnLlM47RLfI/lFCceRtFJsV9hEHK/x/Jz/zFgnpz8DVIlBb8=
"""


def schema_1() -> bytes:
    """Return the file."""
    return zlib.decompress(base64.b64decode(_PACKED))
