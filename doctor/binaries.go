//go:build linux

package doctor

import (
	"context"
	"fmt"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/firecracker/api"
)

func checkBinaries(ctx context.Context, h host, o firecracker.Options) []Finding {
	findings := checkPair(ctx, h, o)
	for _, path := range o.Binaries {
		findings = append(findings, checkFurther(ctx, h, o, path)...)
	}
	return findings
}

// checkFurther looks at a binary that only restores. Machines run without it, but for those of its snapshots.
func checkFurther(ctx context.Context, h host, o firecracker.Options, path string) []Finding {
	const check, remedy = "further firecracker", "install that release again, or take it out of MICROVM_FIRECRACKER_BINARIES: what it restores can't be restored without"
	version, err := h.version(ctx, path)
	if err != nil {
		return []Finding{warn(check, err.Error(), remedy)}
	}
	evidence := fmt.Sprintf("%s is version %s", path, version)
	if version.Compare(firecracker.MinVersion()) < 0 {
		return []Finding{warn(check, evidence, "take it out of MICROVM_FIRECRACKER_BINARIES: it must be "+firecracker.MinVersion().String()+" or later")}
	}
	if !o.Bare {
		jailer := o.JailerOf(path)
		jails, err := h.version(ctx, jailer)
		if err != nil {
			return []Finding{warn(check, err.Error(), remedy)}
		}
		evidence += fmt.Sprintf(", its jailer %s is %s", jailer, jails)
		if jails != version {
			return append([]Finding{warn(check, evidence, "put the jailer of that release beside it")}, knownOf(version)...)
		}
	}
	return append([]Finding{ok(check, evidence)}, knownOf(version)...)
}

// checkPair looks at what machines boot on.
func checkPair(ctx context.Context, h host, o firecracker.Options) []Finding {
	vmm, findings := checkBinary(ctx, h, "firecracker", o.Firecracker)
	if vmm != nil {
		findings = append(findings, knownOf(*vmm)...)
	}
	if o.Bare {
		return findings
	}
	jailer, more := checkBinary(ctx, h, "jailer", o.Jailer)
	findings = append(findings, more...)
	if vmm == nil || jailer == nil {
		return findings
	}
	evidence := fmt.Sprintf("firecracker %s, jailer %s", *vmm, *jailer)
	if *vmm != *jailer {
		return append(findings, fail("one release", evidence, "install both of one release, or set MICROVM_FIRECRACKER_BIN and MICROVM_JAILER_BIN to such"))
	}
	return append(findings, ok("one release", evidence))
}

// checkBinary returns the version of a binary, nil where that is not known.
func checkBinary(ctx context.Context, h host, check, path string) (*api.Version, []Finding) {
	version, err := h.version(ctx, path)
	if err != nil {
		return nil, []Finding{fail(check, err.Error(), "install a Firecracker release, 1.7 or later (microvm setup), or set MICROVM_FIRECRACKER_BIN and MICROVM_JAILER_BIN")}
	}
	evidence := fmt.Sprintf("%s is version %s", path, version)
	if version.Compare(firecracker.MinVersion()) < 0 {
		return &version, []Finding{fail(check, evidence, "install "+firecracker.MinVersion().String()+" or later")}
	}
	return &version, []Finding{ok(check, evidence)}
}

// knownOf tells of what is known to be wrong with a version.
func knownOf(version api.Version) []Finding {
	var findings []Finding
	for _, problem := range version.Known() {
		findings = append(findings, warn("firecracker "+version.String(), problem.What, problem.Remedy))
	}
	return findings
}
