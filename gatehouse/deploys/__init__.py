"""The deploy, component by component: the only code that imports pyinfra."""
