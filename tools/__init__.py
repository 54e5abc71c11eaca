"""Development tools: what makes fixtures, vectors and measurements. Not part of the package."""
