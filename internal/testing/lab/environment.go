//go:build linux

package lab

import (
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/internal/setup"
)

// given is the directory below Payload of a firecracker that is not of the parts' disk, under the name that its jailer insists on.
const given = "given"

// stock returns the firecracker and the jailer of a cache.
func stock(cache string) (firecracker, jailer string) {
	dir := filepath.Join(cache, "firecracker", setup.FirecrackerVersion)
	return filepath.Join(dir, "firecracker"), filepath.Join(dir, "jailer")
}

// isGiven says whether the parts have another firecracker than their cache.
func isGiven(p setup.Parts) bool {
	firecracker, jailer := stock(p.Cache)
	return p.Firecracker != firecracker || p.Jailer != jailer
}

// Inside returns where the parts are for a program in the lab.
func Inside(p setup.Parts) setup.Parts {
	kernel := filepath.Join(Cache, "kernel", "current")
	firecracker, jailer := stock(Cache)
	if isGiven(p) {
		firecracker, jailer = filepath.Join(Payload, given, "firecracker"), filepath.Join(Payload, given, "jailer")
	}
	return setup.Parts{
		Cache:       Cache,
		Firecracker: firecracker,
		Jailer:      jailer,
		Vmlinux:     filepath.Join(kernel, "vmlinux"),
		Modules:     filepath.Join(kernel, "lib", "modules", filepath.Base(p.Modules)),
		Base:        filepath.Join(Cache, "base", filepath.Base(p.Base)),
		Agent:       filepath.Join(Payload, filepath.Base(p.Agent)),
		Microvm:     filepath.Join(Payload, filepath.Base(p.Microvm)),
		Busybox:     filepath.Join(Payload, filepath.Base(p.Busybox)),
	}
}

// Binaries are the files that [Inside] expects beside the parts that are on disks of their own: for Options.Files. Those that were not built are left out.
func Binaries(p setup.Parts) map[string]string {
	files := map[string]string{}
	for _, path := range []string{p.Agent, p.Microvm, p.Busybox} {
		if _, err := os.Stat(path); err == nil {
			files[filepath.Base(path)] = path
		}
	}
	if isGiven(p) {
		files[filepath.Join(given, "firecracker")], files[filepath.Join(given, "jailer")] = p.Firecracker, p.Jailer
	}
	return files
}

// Environment returns the variables by which package firecracker, and package ring, find the parts where real guests run: that is ring 4.
func Environment(p setup.Parts) []string {
	return []string{
		"MICROVM_FIRECRACKER_BIN=" + p.Firecracker, "MICROVM_JAILER_BIN=" + p.Jailer, "MICROVM_FIRECRACKER_KERNEL=" + p.Vmlinux,
		"MICROVM_KERNEL_MODULES=" + p.Modules, "MICROVM_IMAGE=" + p.Base, "MICROVM_AGENT_BIN=" + p.Agent,
		"MICROVM_TEST_FIRECRACKER=" + p.Firecracker, "MICROVM_TEST_AGENT=" + p.Agent, "MICROVM_TEST_MICROVM=" + p.Microvm, "MICROVM_TEST_BUSYBOX=" + p.Busybox,
		"MICROVM_TEST_RING=4",
	}
}
