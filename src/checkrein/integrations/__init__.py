"""One thin module for each agent framework, over what all of them share.

* :mod:`~checkrein.integrations.hosts`: what a model is told, native confirmation,
  what is written down about models, the audit at start-up.
* :mod:`~checkrein.integrations.foresight`: the question before the call.
* :mod:`~checkrein.integrations.conversations`: a run beside the framework's own saved state.
* :mod:`~checkrein.integrations.adoption`: guards for tools that are not ours.

Each other module is named after its framework, needs that installed, and is imported
by name: ``from checkrein.integrations.langchain import Guard``. This package imports none.
"""
