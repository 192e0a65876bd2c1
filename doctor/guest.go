//go:build linux

package doctor

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

// problem is an error where the default image needs what is wrong, and a warning where it is for a Spec to say what it boots.
func problem(o firecracker.Options, check, evidence, remedy string) Finding {
	if o.Image != "" {
		return fail(check, evidence, remedy)
	}
	return warn(check, evidence, remedy)
}

func checkKernel(_ context.Context, _ host, o firecracker.Options) []Finding {
	const check = "kernel"
	head := make([]byte, 0x206)
	if err := readHead(o.Kernel, head); err != nil {
		return []Finding{problem(o, check, err.Error(), "put a kernel there (microvm setup gets one), set MICROVM_KERNEL, or let each Spec name its own")}
	}
	if string(head[0x202:]) == "HdrS" {
		return []Finding{problem(o, check, o.Kernel+" is a bzImage", "take the vmlinux out of it (kernel.Extract): Firecracker up to 1.16 boots nothing else on x86_64")}
	}
	findings := []Finding{ok(check, o.Kernel+" is there")}
	release, err := o.CheckKernel()
	if err != nil {
		return append(findings, problem(o, "kernel modules", err.Error(), "give the kernel its modules, MICROVM_KERNEL_MODULES: machines with an image need them"))
	}
	return append(findings, ok("kernel modules", "those of "+release+" are whole"))
}

// readHead reads the beginning of a regular file.
func readHead(path string, head []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	if _, err := io.ReadFull(f, head); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func checkAgent(_ context.Context, _ host, o firecracker.Options) []Finding {
	const check = "agent"
	remedy := "go install …/cmd/microvm-agent with CGO_ENABLED=0, or set MICROVM_AGENT_BIN: machines with an image need it"
	path, err := o.FindAgent()
	if err != nil {
		return []Finding{problem(o, check, err.Error(), remedy)}
	}
	program, err := elf.Open(path)
	if err != nil {
		return []Finding{problem(o, check, fmt.Sprintf("%s: %v", path, err), remedy)}
	}
	defer program.Close()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			return []Finding{problem(o, check, path+" is not static, and the guest's initial RAM file system has no libraries", remedy)}
		}
	}
	return []Finding{ok(check, path+" is a static program")}
}

func checkImage(_ context.Context, _ host, o firecracker.Options) []Finding {
	const check, magic = "image", 1024 + 0x38 // of ext4 (fs/ext4/ext4.h)
	if o.Image == "" {
		return checkRootfs(o)
	}
	head := make([]byte, magic+2)
	if err := readHead(o.Image, head); err != nil {
		return []Finding{fail(check, err.Error(), "make it (microvm setup, or package image), or set MICROVM_IMAGE")}
	}
	if string(head[magic:]) != "\x53\xef" {
		return []Finding{fail(check, o.Image+" is no ext4", "make one of a directory or a tar with package image, or set MICROVM_IMAGE")}
	}
	return []Finding{ok(check, o.Image+" is an ext4")}
}

func checkRootfs(o firecracker.Options) []Finding {
	const check = "rootfs"
	if err := readHead(o.Rootfs, make([]byte, 1)); err != nil {
		return []Finding{warn(check, err.Error(), "set MICROVM_IMAGE or MICROVM_ROOTFS, or let each Spec name its own")}
	}
	return []Finding{ok(check, o.Rootfs+" is there")}
}

func checkPrograms(_ context.Context, h host, o firecracker.Options) []Finding {
	const remedy = "apt-get install e2fsprogs: "
	var findings []Finding
	for _, program := range []struct {
		name, use string
		without   func(check, evidence, remedy string) Finding
	}{
		{"mke2fs", "layers over an image are made with it", func(check, evidence, remedy string) Finding { return problem(o, check, evidence, remedy) }},
		{"resize2fs", "root file systems are grown with it", warn},
	} {
		path, err := h.program(program.name)
		if err != nil {
			findings = append(findings, program.without(program.name, err.Error(), remedy+program.use))
			continue
		}
		findings = append(findings, ok(program.name, path+" is there"))
	}
	return findings
}
