"""Correlations of two variables that arrive in blocks."""

import numpy as np

FLAT = 1e-6
"""Spread, relative to the root mean square, below which a vector counts as constant: it is rounding, not signal."""


class PairMoments:
    """Means, squares and cross-products over the first axis, merged block by block (Chan, Golub & LeVeque 1983).

    A trailing axis, if any, holds independent pairs (one per gene).
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean_x = self.mean_y = np.float64(0)
        self.xx = self.yy = self.xy = np.float64(0)  # centred sums
        self.squared_error = np.float64(0)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in a block of both variables."""
        n = len(x)
        if n == 0:
            return
        mean_x, mean_y = x.mean(0), y.mean(0)
        dx, dy = x - mean_x, y - mean_y
        shift_x, shift_y = mean_x - self.mean_x, mean_y - self.mean_y
        between = self.n * n / (self.n + n)
        self.xx = self.xx + _dot(dx, dx) + between * shift_x * shift_x
        self.yy = self.yy + _dot(dy, dy) + between * shift_y * shift_y
        self.xy = self.xy + _dot(dx, dy) + between * shift_x * shift_y
        difference = x - y
        self.squared_error = self.squared_error + _dot(difference, difference)
        self.n += n
        self.mean_x = self.mean_x + shift_x * n / self.n
        self.mean_y = self.mean_y + shift_y * n / self.n

    @property
    def raw_squares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums of x * x, y * y and x * y, not centred."""
        return (
            self.xx + self.n * self.mean_x**2,
            self.yy + self.n * self.mean_y**2,
            self.xy + self.n * self.mean_x * self.mean_y,
        )

    @property
    def pearson(self) -> np.ndarray:
        """Pearson correlation; 0 where a side is constant, NaN without data."""
        x_square, y_square, _ = self.raw_squares
        return self._ratio(self.xy, _above(self.xx, x_square), _above(self.yy, y_square))

    @property
    def varies_y(self) -> np.ndarray:
        """Whether the second variable varies."""
        return _above(self.yy, self.raw_squares[1]) > 0

    @property
    def cosine(self) -> np.ndarray:
        """Cosine of the angle between the two vectors; 0 where one is zero, NaN without data."""
        x_square, y_square, product = self.raw_squares
        return self._ratio(product, x_square, y_square)

    @property
    def rmse(self) -> np.ndarray:
        """Root of the mean squared difference; NaN without data."""
        return np.sqrt(self.squared_error / self.n) if self.n else np.float64(np.nan)

    def _ratio(self, product: np.ndarray, x_square: np.ndarray, y_square: np.ndarray) -> np.ndarray:
        if not self.n:
            return np.float64(np.nan)
        scale = np.sqrt(x_square) * np.sqrt(y_square)
        ratio = np.divide(product, scale, out=np.zeros_like(scale), where=scale > 0)
        return np.clip(ratio, -1, 1)


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.einsum("n...,n...->...", x, y)


def _above(centred: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Centred squares, with rounding noise set to 0."""
    return np.where(centred > FLAT**2 * raw, centred, 0.0)
