"""The input picture's details, carried through a clip that was made from it.

A generated clip knows the motion, the picture it was made from knows the details. Where a frame shows what the picture
shows, the picture is seen through the frame's flow, in the frame's tones; elsewhere the clip remains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .tracking import Array, Follower, Pixels, Sight, blurred, grid, warped

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601
TONE = 6.0
K1,K2=2.5,0.3
KAPPA=0.7
BANDS = (1.0, 2.0, 4.0)


def carry_details(chunks: Iterable[Pixels], picture: Pixels) -> Iterator[Pixels]:
    carrier = Carrier(picture)
    for chunk in chunks:
        yield np.stack([carrier.carry(frame) for frame in chunk])


class Carrier:
    def __init__(self, picture: Pixels) -> None:
        self.picture = picture.astype(np.float32)
        self.follower = None
        self.gains=None; self.prev=None

    def carry(self, frame):
        import cv2
        h, w = self.picture.shape[:2]
        times = w / frame.shape[1]
        if self.follower is None:
            k = min(1.0, 2 / times)
            self.track_size = round(w*k), round(h*k)
            self.scale = w/self.track_size[0]
            self.follower = Follower(self.resize(self.picture @ LUMINANCE, self.track_size))
        U = self.resize(frame, (w, h)).astype(np.float32)
        sight = self.follower.follow(self.resize(U @ LUMINANCE, self.track_size))
        if sight is None:
            return U.round().clip(0,255).astype(np.uint8)
        s = self.scale
        flow = self.resize(sight.flow, (w, h)) * s
        C = warped(self.picture, flow, sharp=True)
        pos = grid(h, w) + flow
        edge = np.minimum(np.minimum(pos[...,0], w-1-pos[...,0]), np.minimum(pos[...,1], h-1-pos[...,1]))
        inside = ((edge + 1*s)/(2*s)).clip(0, 1)
        Cm = blurred(C, max(sight.blur*s,0.1))
        diff = U - Cm
        trust = inside
        for _ in range(2):
            tone = blurred(diff*trust[...,None], TONE*s)/(blurred(trust, TONE*s)[...,None]+1e-3)
            r = np.square(diff - tone).mean(2)
            E = blurred(r, 4*s)
            if _==0: ED = blurred(np.square(Cm-blurred(Cm,TONE*s)).mean(2), 4*s)
            N = np.median(E[inside>.5]) if (inside>.5).any() else 1.
            limit = K1*N + K2*ED + 2
            trust = inside / (1 + (E/limit)**3)
        trust = np.minimum(trust, blurred(trust, 3*s))
        # bands
        Ct = C+tone
        R = self.restore(U, Ct, trust, s)
        if KAPPA and self.prev is not None:
            step = self.resize(sight.step, (w, h)) * s
            B = warped(self.prev, step, sharp=True)
            pos = grid(h, w) + step
            ins = ((pos>=0)&(pos<=[w-1,h-1])).all(2).astype(np.float32)
            dB = U - blurred(B, max(sight.blur*s,0.1)); tb = blurred(dB, TONE*s)
            EB = blurred(np.square(dB-tb).mean(2), 4*s)
            k = KAPPA*ins/(1+(EB/(K1*N+K2*ED+2))**3)
            R = R + (B+tb-R)*k[...,None]
        self.trust=trust; self.R=R
        out = R + (Ct-R)*trust[...,None]
        self.prev = out
        return out.round().clip(0,255).astype(np.uint8)

    def restore(self, U, C, trust, s):
        out = None; a, b = U, C
        m = trust[...,None]
        total = trust.mean()
        res = 0; gains=[]
        for sg in BANDS:
            a2, b2 = blurred(U, sg*s), blurred(C, sg*s)
            ba, bb = a-a2, b-b2
            g = float((m*ba*bb).sum()/((m*ba*ba).sum()+1))
            g = np.clip(g, 0, 3)
            t = total/(total+.1)
            g = 1+(g-1)*t
            gains.append(g)
            res = res + g*ba
            a, b = a2, b2
        self.gains=gains
        return res + a

    def resize(self, a, size):
        import cv2
        if (a.shape[1], a.shape[0]) == size: return a
        up = size[0] > a.shape[1]
        return cv2.resize(a, size, interpolation=cv2.INTER_CUBIC if up else cv2.INTER_AREA)
