"""Stage two: run one engine per cell and write down everything that a comparison needs."""
