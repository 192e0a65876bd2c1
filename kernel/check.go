package kernel

import "strings"

// Severity says how much a finding matters.
type Severity string

// The severities, the worst first.
const (
	SeverityError   Severity = "error"   // Machines do not boot, or nothing can be done in them.
	SeverityWarning Severity = "warning" // Machines work, and lack something.
	SeverityNote    Severity = "note"    // Only few miss it.
)

// Finding is an option that a kernel was configured without.
type Finding struct {
	Severity Severity `json:"severity"`
	Option   string   `json:"option"` // Such as "CONFIG_VIRTIO_BLK". Of several any one would do: "CONFIG_ACPI or CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES".
	Cost     string   `json:"cost"`   // What it costs not to have it.
}

// requirement is an option that guests on Firecracker want.
type requirement struct {
	severity Severity
	options  string // Any one of them will do.
	arch     string // Only there. Empty for everywhere.
	module   bool   // It may be a module: the agent's initial RAM file system loads it, or nobody needs it to boot.
	cost     string
}

// requirements are the rows of [Check], the worst first.
var requirements = []requirement{
	{SeverityError, "VIRTIO_MMIO", "", true, "the guest finds none of its devices"},
	{SeverityError, "ACPI VIRTIO_MMIO_CMDLINE_DEVICES", "X86_64", false, "the guest finds none of its devices"},
	{SeverityError, "OF", "ARM64", false, "the guest finds none of its devices"},
	{SeverityError, "VIRTIO_BLK", "", true, "the guest has no disks"},
	{SeverityError, "EXT4_FS", "", true, "base images and layers can't be mounted"},
	{SeverityError, "OVERLAY_FS", "", true, "there is no layer over a base image, so no image boots"},
	{SeverityError, "VSOCKETS", "", true, "the agent can't be reached"},
	{SeverityError, "VIRTIO_VSOCKETS", "", true, "the agent can't be reached"},
	{SeverityError, "BLK_DEV_INITRD", "", false, "the agent can't be loaded: it comes in an initial RAM file system"},
	{SeverityError, "DEVTMPFS", "", false, "the agent finds no disks"},
	{SeverityError, "TMPFS", "", false, "the agent can't make /run"},
	{SeverityError, "PROC_FS", "", false, "the agent can't make /proc"},
	{SeverityError, "SYSFS", "", false, "the agent can't make /sys"},
	{SeverityError, "CGROUPS", "", false, "the agent can't make /sys/fs/cgroup (version 2)"},
	{SeverityError, "UNIX98_PTYS", "", false, "the agent can't make /dev/pts: no terminals"},
	{SeverityError, "INET", "", false, "the agent can't bring the loopback interface up"},
	{SeverityError, "BINFMT_ELF", "", false, "no program starts"},
	{SeverityError, "FUTEX", "", false, "the agent, and most programs, don't run"},
	{SeverityError, "EPOLL", "", false, "the agent, and most programs, don't run"},
	{SeverityWarning, "VIRTIO_NET", "", true, "the guest has no network"},
	{SeverityWarning, "HW_RANDOM_VIRTIO", "", true, "the guest has no entropy from the host: it is slow to be sure of its random numbers"},
	{SeverityWarning, "SERIAL_8250_CONSOLE", "X86_64", false, "the console is silent: why a boot failed is not seen"},
	{SeverityWarning, "KVM_GUEST", "X86_64", false, "no paravirtual clock: time is slow to read and drifts after a pause, stolen time is not seen"},
	{SeverityWarning, "SERIO_I8042", "X86_64", false, "Ctrl-Alt-Del is not heard: machines without agent end by force, and what they had not written is lost"},
	{SeverityWarning, "KEYBOARD_ATKBD", "X86_64", false, "Ctrl-Alt-Del is not heard: machines without agent end by force, and what they had not written is lost"},
	{SeverityWarning, "SMP", "", false, "the guest uses one vCPU, however many it has"},
	{SeverityWarning, "MEMCG", "", false, "programs in the guest have no memory limits of their own, as containers want"},
	{SeverityWarning, "VMGENID", "", true, "a clone does not learn that it is one: the kernel's random numbers are those of its siblings until the agent reseeds"},
	{SeverityNote, "VIRTIO_MMIO_CMDLINE_DEVICES", "X86_64", false, "Firecracker before 1.8, which has no ACPI, finds no devices for it"},
	{SeverityNote, "PVH", "X86_64", false, "it boots by the older 64-bit protocol: nothing is lost"},
	{SeverityNote, "PTP_1588_CLOCK_KVM", "", true, "programs in the guest can't follow the host's clock (/dev/ptp0)"},
	{SeverityNote, "VIRTIO_BALLOON", "", true, "memory can't be taken back from the running guest"},
	{SeverityNote, "CGROUP_PIDS", "", false, "programs in the guest can't be limited in number, as containers want"},
	{SeverityNote, "SQUASHFS", "", true, "drives with squashfs can't be mounted"},
}

// Check says what a kernel was configured without that guests on Firecracker want, and what that costs, the worst first. What may be a module is there when it is one. Config
// is the text of the kernel's build: config beside a distribution's kernel, or what [Config] returns. A text that is no configuration is one finding.
func Check(config []byte) []Finding {
	set := parseConfig(config)
	arch := "X86_64"
	switch {
	case set["ARM64"] == "y":
		arch = "ARM64"
	case set["X86_64"] != "y":
		return []Finding{{SeverityError, names("X86_64 ARM64"), "it is no configuration of a kernel that Firecracker boots"}}
	}
	var findings []Finding
	for _, r := range requirements {
		if r.arch == "" || r.arch == arch {
			findings = append(findings, r.check(set)...)
		}
	}
	return findings
}

func (r requirement) check(set map[string]string) []Finding {
	cost := r.cost
	for option := range strings.FieldsSeq(r.options) {
		if set[option] == "y" || set[option] == "m" && r.module && set["MODULES"] == "y" {
			return nil
		}
		if set[option] == "m" {
			cost = "it is a module, and must be built in: " + r.cost
		}
	}
	return []Finding{{r.severity, names(r.options), cost}}
}

// names returns options as the configuration has them.
func names(options string) string {
	return "CONFIG_" + strings.Join(strings.Fields(options), " or CONFIG_")
}

// Worst returns the worst severity of findings, "" when there are none.
func Worst(findings []Finding) Severity {
	for _, severity := range []Severity{SeverityError, SeverityWarning, SeverityNote} {
		for _, finding := range findings {
			if finding.Severity == severity {
				return severity
			}
		}
	}
	return ""
}
