# SPDX-License-Identifier: GPL-2.0
#
# Builds the vhost_blk module for an installed kernel. See "make help".

# Neither make nor kbuild can.
ifneq ($(words $(CURDIR)),1)
$(error vhost_blk cannot be built below a directory with a space in its name: $(CURDIR))
endif

KDIR ?= /lib/modules/$(shell uname -r)/build

top := $(patsubst %/,%,$(dir $(realpath $(lastword $(MAKEFILE_LIST)))))
release := $(shell sed -n 's/^\#define UTS_RELEASE "\(.*\)"$$/\1/p' \
	$(KDIR)/include/generated/utsrelease.h 2>/dev/null)
compat := $(top)/compat/generated/$(or $(release),none)
module := $(top)/drivers/vhost/vhost_blk.ko

kbuild = $(MAKE) -C $(KDIR) M=$(top) CONFIG_VHOST_BLK=m \
	VHOST_BLK_TOP=$(top) VHOST_BLK_COMPAT=$(compat)

.PHONY: all modules modules_install clean help run soak test bench

all: modules

modules:
	@$(top)/compat/prepare "$(KDIR)" "$(compat)"
	+@$(kbuild) modules
	@$(top)/compat/check-layout $(module) $(compat) || { rm -f $(module); exit 1; }

modules_install: modules
	+@$(kbuild) modules_install

# No kernel is needed to clean up.
clean:
	@rm -rf $(top)/compat/generated $(top)/.tmp_versions
	@cd $(top) && rm -f modules.order Module.symvers .module-common.o .*.cmd
	@cd $(top)/drivers/vhost && rm -f *.o *.ko *.mod *.mod.c .*.cmd modules.order

run:
	@$(top)/scripts/run

test:
	@$(top)/scripts/test

bench:
	@$(top)/scripts/bench

# For as long as SECONDS says, else for an hour.
soak:
	@$(top)/scripts/soak $(if $(SECONDS),--seconds $(SECONDS))

help:
	@echo 'make                  build the module for the running kernel'
	@echo 'make modules_install  and install it'
	@echo 'make clean            remove what was built'
	@echo 'make run              boot a guest on a disk served by vhost_blk, in a VM'
	@echo 'make test             run all tests, in VMs'
	@echo 'make soak             run the random ones for an hour, or SECONDS=<n>'
	@echo 'make bench            measure what a request costs, in VMs'
	@echo
	@echo 'KDIR=<directory>      build for another kernel: its build directory'
	@echo 'W=1                   with more warnings'
	@echo 'INSTALL_MOD_PATH=     install below another root'
	@echo
	@echo 'The private header of vhost is made from the type information (BTF) of the'
	@echo 'target kernel. If it is not found by itself:'
	@echo 'VHOST_KO=<file>       the vhost.ko of that kernel'
	@echo 'VMLINUX_BTF=<file>    its vmlinux, vmlinuz or raw BTF'
	@echo 'KSRC=<directory>      or its source tree, for the real header'
