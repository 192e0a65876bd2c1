//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	microvm "github.com/tangle-network/microvm-runtime"
)

// specFlags are the flags that make a Spec; create and run share them.
type specFlags struct {
	spec   microvm.Spec
	limit  string
	drives []string
	labels []string
	net    netFlags
}

func (f *specFlags) add(flags *pflag.FlagSet) {
	flags.Var(processors{&f.spec.VCPUs}, "cpus", "virtual CPUs, 1 to 32")
	flags.Var(processors{&f.spec.VCPUs}, "vcpus", "the same as --cpus")
	flags.VarP(mebibytes{&f.spec.MemoryMiB}, "memory", "m", "memory in MiB, or with a unit, as 512m or 2g")
	flags.StringVar(&f.spec.Kernel, "kernel", "", "path of an uncompressed kernel, or the name of one that microvm kernel ls lists")
	flags.StringVar(&f.spec.Initrd, "initrd", "", "path of an initial RAM file system")
	flags.StringVar(&f.spec.KernelArgs, "kernel-args", "", "appended to the kernel's command line")
	flags.StringVar(&f.spec.Image, "image", "", "path of a base image, which the guest agent boots")
	flags.StringVar(&f.spec.Rootfs, "rootfs", "", "path of a disk with an init of its own, or the name of a stack in MICROVM_ROOTFS_TEMPLATE_DIR")
	flags.BoolVar(&f.spec.RootfsWritable, "rootfs-writable", false, "give the machine a private, writable copy of --rootfs")
	flags.IntVar(&f.spec.RootfsMiB, "rootfs-size", 0, "grow the copy of --rootfs to this size in MiB")
	flags.BoolVar(&f.spec.Diskless, "diskless", false, "boot the kernel without a disk")
	flags.IntVar(&f.spec.LayerMiB, "layer", 0, "size of the writable layer over --image in MiB")
	flags.BoolVar(&f.spec.LayerInMemory, "layer-in-memory", false, "write to the guest's memory in place of a layer; it is gone at stop")
	flags.BoolVar(&f.spec.TrackDirty, "track-dirty", false, "remember what memory is written, for snapshot create --diff")
	flags.StringVar(&f.limit, "disk-limit", "", limitUsage)
	flags.StringArrayVar(&f.drives, "drive", nil, driveUsage)
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "KEY=VALUE, repeatable")
	f.net.add(flags)
}

// make returns the spec; paths are made absolute, as the shell's user means them.
func (f *specFlags) make() (microvm.Spec, error) {
	spec := f.spec
	for _, path := range []*string{&spec.Kernel, &spec.Initrd, &spec.Image, &spec.Rootfs} {
		if *path == "" || (path == &spec.Kernel || path == &spec.Rootfs) && isName(*path) || path == &spec.Image && !looksLikePath(*path) {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return spec, err
		}
		*path = absolute
	}
	if f.limit != "" {
		limit, err := parseLimit(f.limit)
		if err != nil {
			return spec, err
		}
		spec.DiskLimit = limit
	}
	for _, text := range f.drives {
		drive, err := parseDrive(text)
		if err != nil {
			return spec, err
		}
		spec.Drives = append(spec.Drives, drive)
	}
	var err error
	if spec.Network, err = f.net.make(); err != nil {
		return spec, err
	}
	spec.Labels, err = pairs(f.labels)
	return spec, err
}

// looksLikePath tells a path from an image's name, which may have slashes.
func looksLikePath(text string) bool {
	return strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
}

// isName says whether a text that may be a path is a name: it has no slash, and is no file here.
func isName(text string) bool {
	_, err := os.Stat(text)
	return err != nil && microvm.ValidateName(text) == nil
}

// pairs parses KEY=VALUE.
func pairs(texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usageError{fmt.Errorf("%q is not KEY=VALUE", text)}
		}
		m[key] = value
	}
	return m, nil
}
