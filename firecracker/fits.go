//go:build linux

package firecracker

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/snapstore"
)

// fits says whether this host is one for a snapshot, and what it is restored by: microvm.ErrIncompatible tells what differs. It looks at no content.
func (d *driver) fits(ctx context.Context, m *snapstore.Manifest) (program, error) {
	if m.Layout != layoutVersion {
		return program{}, misfit(m, "layout", m.Layout, layoutVersion, "use the release of this library that made it")
	}
	p, err := d.restoring(ctx, m)
	if err != nil {
		return p, err
	}
	cpu, err := hostCPU()
	if err != nil {
		return p, err
	}
	if err := cpuFits(m, cpu); err != nil {
		return p, err
	}
	return p, d.filesFit(m)
}

// misfit tells what a snapshot was made with, and what there is.
func misfit(m *snapstore.Manifest, what string, made, here any, remedy string) error {
	return fmt.Errorf("%w: snapshot %s was made with %s %v, here is %v (%s)", microvm.ErrIncompatible, m.Name, what, made, here, remedy)
}

// cpuFits says whether a CPU can go on with what a guest has seen of another.
func cpuFits(m *snapstore.Manifest, here snapstore.CPU) error {
	made := m.CPU
	if made.Vendor != here.Vendor || made.Family != here.Family || made.Model != here.Model {
		return misfit(m, "a CPU", made.Vendor+" "+made.Family+"/"+made.Model+" "+made.Name, here.Vendor+" "+here.Family+"/"+here.Model+" "+here.Name, "restore it on a host with the same")
	}
	for _, flag := range made.Flags {
		if _, ok := slices.BinarySearch(here.Flags, flag); !ok {
			return misfit(m, "a CPU that has", flag, "one that does not", "restore it on a host with the same")
		}
	}
	return nil
}

// filesFit says whether what the machine boots from is there, and whether the snapshot's own files are, as large as they were. Nobody has written down how large the former were.
func (d *driver) filesFit(m *snapstore.Manifest) error {
	for _, path := range append([]string{m.Shared.Kernel, m.Shared.Initrd, m.Shared.Base}, m.Shared.Drives...) {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: snapshot %s needs a file of the store: %w", microvm.ErrIncompatible, m.Name, err)
		}
	}
	for name, file := range m.Files {
		info, err := os.Stat(d.snaps.Path(m, name))
		if err != nil {
			return fmt.Errorf("%w: snapshot %s: %w", microvm.ErrIncompatible, m.Name, err)
		}
		if info.Size() != file.Size {
			return misfit(m, "a file "+name+" of", file.Size, fmt.Sprint(info.Size(), " bytes"), "it is damaged: delete the snapshot")
		}
	}
	return nil
}

// hostCPU returns what guests see of the host's CPUs, which are alike. It is read once: it does not change while the host runs.
var hostCPU = sync.OnceValues(func() (cpu snapstore.CPU, err error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return cpu, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && lines.Text() != "" {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "vendor_id", "CPU implementer":
			cpu.Vendor = value
		case "cpu family", "CPU architecture":
			cpu.Family = value
		case "model", "CPU part":
			cpu.Model = value
		case "model name":
			cpu.Name = value
		case "flags", "Features":
			cpu.Flags = strings.Fields(value)
		}
	}
	slices.Sort(cpu.Flags)
	return cpu, lines.Err()
})
