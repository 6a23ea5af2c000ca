"""The methods SADP is compared with: one method, one file, each readable on its own. Name -> class."""

PRUNERS = {
    "fewer-epochs": "baselines.fewer_epochs:FewerEpochs",
    "random": "baselines.random_subset:Random",
    "el2n": "baselines.el2n:EL2N",
    "grand": "baselines.grand:GraNd",
    "forgetting": "baselines.forgetting:Forgetting",
    "infobatch": "baselines.infobatch:InfoBatch",
}
