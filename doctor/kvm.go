//go:build linux

package doctor

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/tangle-network/microvm-runtime/firecracker"
)

// KVM says what the host's KVM is, by what carries it and by a real attempt.
type KVM struct {
	Kind     string // "intel", "amd", "arm", "pvm", or "" for none known.
	Hardware bool   // The CPU says that it virtualises.
	Err      error  // Why no VM could be made; nil when one was.
}

// RunsLinux says whether an unmodified Linux boots: PVM runs only guests that were made for it.
func (k KVM) RunsLinux() bool { return k.Err == nil && k.Kind != "pvm" && k.Hardware }

// ProbeKVM looks at /sys/module and the CPU's flags, and makes a VM.
func ProbeKVM() KVM { return probeKVM(thisHost()) }

func probeKVM(h host) KVM {
	var k KVM
	for _, module := range []struct{ name, kind string }{{"kvm_pvm", "pvm"}, {"kvm_intel", "intel"}, {"kvm_amd", "amd"}} {
		if _, err := os.Stat(h.path("/sys/module/" + module.name)); err == nil {
			k.Kind = module.kind
			break
		}
	}
	cpu, _ := os.ReadFile(h.path("/proc/cpuinfo"))
	for line := range strings.Lines(string(cpu)) {
		if strings.HasPrefix(line, "flags") {
			k.Hardware = strings.Contains(line, " vmx") || strings.Contains(line, " svm")
			break
		}
		if strings.HasPrefix(line, "CPU implementer") { // arm64 says nothing of it
			k.Kind, k.Hardware = "arm", true
			break
		}
	}
	k.Err = h.makeVM()
	return k
}

func checkKVM(_ context.Context, h host, _ firecracker.Options) []Finding {
	k := probeKVM(h)
	evidence := fmt.Sprintf("kind %q, CPU virtualises: %v", k.Kind, k.Hardware)
	switch {
	case k.Err != nil:
		return []Finding{fail("kvm", fmt.Sprintf("%s; no VM could be made: %v", evidence, k.Err), "load kvm_intel or kvm_amd, enable virtualisation in the firmware or nested virtualisation in the hypervisor, and give this user access to /dev/kvm")}
	case !k.RunsLinux():
		return []Finding{warn("kvm", evidence+"; a VM was made", "an unmodified Linux guest does not boot on this KVM; use a host with VMX or SVM")}
	}
	return []Finding{ok("kvm", evidence+"; a VM was made")}
}
