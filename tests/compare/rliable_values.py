# SPDX-License-Identifier: MIT
# What rliable says of the runs in a JSON file: rliable_values.py DATA ANSWER
import json
import sys

import numpy as np
from rliable import library, metrics

data = json.load(open(sys.argv[1]))
x, y = (np.array(data[name]).T for name in "xy")  # runs × tasks


def interval(scores, statistic):
    _, ends = library.get_interval_estimates({"a": scores}, lambda s: np.array([statistic(s)]), reps=10000)
    return [float(ends["a"][0][0]), float(ends["a"][1][0])]


_, poi = library.get_interval_estimates(
    {"a,b": (x, y)}, lambda a, b: np.array([metrics.probability_of_improvement(a, b)]), reps=2000)
profile, _ = library.create_performance_profile({"a": x}, np.array(data["thresholds"]), reps=10)
json.dump(
    {
        "mean": float(metrics.aggregate_mean(x)),
        "median": float(metrics.aggregate_median(x)),
        "iqm": float(metrics.aggregate_iqm(x)),
        "poi": float(metrics.probability_of_improvement(x, y)),
        "profile": [float(v) for v in profile["a"]],
        "mean_interval": interval(x, metrics.aggregate_mean),
        "iqm_interval": interval(x, metrics.aggregate_iqm),
        "poi_interval": [float(poi["a,b"][0][0]), float(poi["a,b"][1][0])],
    },
    open(sys.argv[2], "w"),
)
