"""How fast this network is and how much memory it takes, beside the baselines."""
