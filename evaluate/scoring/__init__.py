"""From judged rows to scores: AlpacaEval's own arithmetic, and how sure each number is."""
