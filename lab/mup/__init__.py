"""``lab mup``: does what is learned on a narrow model hold on a wide one?"""
