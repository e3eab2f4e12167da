"""Balancing: plan → synthesize → filter → write → feed back."""

from synthmtl.balance.calibration import JudgeCalibration, calibrate_judge, kept_calibration
from synthmtl.balance.feedback import Feedback, FeedbackConfig, dilution, feed_back
from synthmtl.balance.plan import BalancePlan, make_plan
from synthmtl.balance.resample import ExpressionBalancer
from synthmtl.balance.strategy import STRATEGIES, resolve_strategy
from synthmtl.balance.synthesize import BalancingResult, synthesize_balancing_set
from synthmtl.balance.write import write_balancing_set

__all__ = [
    "STRATEGIES",
    "BalancePlan",
    "BalancingResult",
    "Feedback",
    "FeedbackConfig",
    "JudgeCalibration",
    "ExpressionBalancer",
    "calibrate_judge",
    "dilution",
    "feed_back",
    "kept_calibration",
    "make_plan",
    "resolve_strategy",
    "synthesize_balancing_set",
    "write_balancing_set",
]
