"""Data-pruning methods that SADP is compared with, a file each. `PRUNERS` maps a method's name to its class."""

PRUNERS = {
    "fewer-epochs": "baselines.fewer_epochs:FewerEpochs",
    "random": "baselines.random_subset:Random",
    "el2n": "baselines.el2n:EL2N",
    "grand": "baselines.grand:GraNd",
    "forgetting": "baselines.forgetting:Forgetting",
    "infobatch": "baselines.infobatch:InfoBatch",
    "moderate": "baselines.moderate:Moderate",
    "balanced-random": "baselines.balanced_random:BalancedRandom",
    "drop": "baselines.drop:DRoP",
    "rcap": "baselines.rcap:RCAP",
    "subset": "baselines.subset:Subset",
    "hwbs": "baselines.hwbs:HWBS",
    "orderdp": "baselines.orderdp:OrderDP",
    "repb": "baselines.repb:RePB",
    "ucb": "baselines.ucb:UCB",
    "eps-greedy": "baselines.eps_greedy:EpsGreedy",
    "craig": "baselines.craig:CRAIG",
    "herding": "baselines.herding:Herding",
    "k-center": "baselines.k_center:KCenter",
}
