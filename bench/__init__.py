"""The figures behind the claims of this project, beside those of the tools that people use today.

python -m bench                    # all parts
python -m bench same power         # some of them
python -m bench --quick            # few repetitions: does it work, not how good is it
python -m bench --write            # also write bench/results.md
"""
