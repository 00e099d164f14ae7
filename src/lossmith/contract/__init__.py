"""The contract: laws that every loss holds, the user's own included."""

from lossmith.contract.api import ContractError, check_loss

__all__ = ["ContractError", "check_loss"]
