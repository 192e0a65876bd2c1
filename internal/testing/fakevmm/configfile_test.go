//go:build linux

package fakevmm

import (
	"strings"
	"testing"
)

const boots = `"boot-source": {"kernel_image_path": "kernel"}`

// configurations are files that both read: most say what one of both could take otherwise.
var configurations = map[string]string{
	"the least":                      `{` + boots + `, "drives": []}`,
	"unknown sections":               `{` + boots + `, "drives": [], "pmem": [{"id": "p", "path_on_host": "none"}], "serial": {"serial_out_path": "none"}, "nonsense": 7}`,
	"an unknown field":               `{` + boots + `, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "nonsense": 7}}`,
	"an unknown field of metrics":    `{` + boots + `, "drives": [], "metrics": {"metrics_path": "metrics", "nonsense": 7}}`,
	"no drives":                      `{` + boots + `}`,
	"no boot source":                 `{"drives": []}`,
	"null drives":                    `{` + boots + `, "drives": null}`,
	"a null NIC list":                `{` + boots + `, "drives": [], "network-interfaces": null}`,
	"null sections":                  `{` + boots + `, "drives": [], "machine-config": null, "vsock": null, "balloon": null, "logger": null}`,
	"nothing":                        ``,
	"no object":                      `[]`,
	"an end too early":               `{` + boots + `, "drives": [`,
	"a section twice":                `{` + boots + `, "drives": [], "drives": []}`,
	"another spelling":               `{` + boots + `, "drives": [], "machine_config": {"vcpu_count": 99, "mem_size_mib": 128}}`,
	"lines":                          "{\n" + boots + ",\n\"drives\": [\n 7]}",
	"a drive of no file":             `{` + boots + `, "drives": [{"drive_id": "d", "path_on_host": "none", "is_root_device": false}]}`,
	"an id with a dash":              `{` + boots + `, "drives": [{"drive_id": "d-1.x", "path_on_host": "disk", "is_root_device": false}]}`,
	"two roots":                      `{` + boots + `, "drives": [{"drive_id": "d", "path_on_host": "disk", "is_root_device": true}, {"drive_id": "e", "path_on_host": "disk", "is_root_device": true}]}`,
	"no kernel":                      `{"boot-source": {"kernel_image_path": "none"}, "drives": []}`,
	"a kernel of zeros":              `{"boot-source": {"kernel_image_path": "disk"}, "drives": []}`,
	"an empty initrd path":           `{"boot-source": {"kernel_image_path": "kernel", "initrd_path": ""}, "drives": []}`,
	"33 CPUs":                        `{` + boots + `, "drives": [], "machine-config": {"vcpu_count": 33, "mem_size_mib": 128}}`,
	"a balloon of too much":          `{` + boots + `, "drives": [], "balloon": {"amount_mib": 500, "deflate_on_oom": true}}`,
	"a balloon of large memory":      `{"balloon": {"amount_mib": 200, "deflate_on_oom": true}, ` + boots + `, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": 256}}`,
	"metadata of no NIC":             `{` + boots + `, "drives": [], "mmds-config": {"network_interfaces": ["eth0"]}}`,
	"a NIC behind its metadata":      `{` + boots + `, "drives": [], "mmds-config": {"network_interfaces": ["eth0"]}, "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}]}`,
	"a socket":                       `{` + boots + `, "drives": [], "vsock": {"guest_cid": 3, "uds_path": "vsock"}}`,
	"a socket that is there":         `{` + boots + `, "drives": [], "vsock": {"guest_cid": 3, "uds_path": "disk"}}`,
	"metrics into no file":           `{` + boots + `, "drives": [], "metrics": {"metrics_path": "none"}}`,
	"a log into no file":             `{` + boots + `, "drives": [], "logger": {"log_path": "none"}}`,
	"a template in line":             `{` + boots + `, "drives": [], "cpu-config": {"kvm_capabilities": []}}`,
	"a template in a file":           `{` + boots + `, "drives": [], "cpu-config": "template"}`,
	"a template in no file":          `{` + boots + `, "drives": [], "cpu-config": "none"}`,
	"metrics before a wrong machine": `{` + boots + `, "drives": [], "machine-config": {"vcpu_count": 0, "mem_size_mib": 128}, "metrics": {"metrics_path": "none"}}`,
	"entropy":                        `{` + boots + `, "drives": [], "entropy": {}}`,

	"three CPUs of two threads":       withSections(`"machine-config": {"vcpu_count": 3, "mem_size_mib": 128, "smt": true}`),
	"no memory":                       withSections(`"machine-config": {"vcpu_count": 1, "mem_size_mib": 0}`),
	"odd memory of huge pages":        withSections(`"machine-config": {"vcpu_count": 1, "mem_size_mib": 129, "huge_pages": "2M"}`),
	"a balloon and huge pages":        withSections(`"machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "huge_pages": "2M"}, "balloon": {"amount_mib": 1, "deflate_on_oom": true}`),
	"boot arguments too long":         `{"boot-source": {"kernel_image_path": "kernel", "boot_args": "` + strings.Repeat("x", 2100) + `"}, "drives": []}`,
	"a directory as a kernel":         `{"boot-source": {"kernel_image_path": "."}, "drives": []}`,
	"an empty kernel":                 `{"boot-source": {"kernel_image_path": "metrics"}, "drives": []}`,
	"a kernel below a file":           `{"boot-source": {"kernel_image_path": "disk/kernel"}, "drives": []}`,
	"a kernel of too long a name":     `{"boot-source": {"kernel_image_path": "` + strings.Repeat("x", 300) + `"}, "drives": []}`,
	"an initrd":                       `{"boot-source": {"kernel_image_path": "kernel", "initrd_path": "disk"}, "drives": []}`,
	"an empty initrd":                 `{"boot-source": {"kernel_image_path": "kernel", "initrd_path": "metrics"}, "drives": []}`,
	"a directory as an initrd":        `{"boot-source": {"kernel_image_path": "kernel", "initrd_path": "."}, "drives": []}`,
	"a directory as a drive":          withDrives(`{"drive_id": "d", "path_on_host": ".", "is_root_device": false}`),
	"a directory as a read-only one":  withDrives(`{"drive_id": "d", "path_on_host": ".", "is_root_device": false, "is_read_only": true}`),
	"a drive without a path":          withDrives(`{"drive_id": "d", "is_root_device": false}`),
	"a drive of an odd name":          withDrives(`{"drive_id": "d", "path_on_host": "a\"b\\c\n\r\t\u0001\u007f'é", "is_root_device": false}`),
	"a drive without an id":           withDrives(`{"drive_id": "", "path_on_host": "disk", "is_root_device": false}`),
	"a drive of an id with a slash":   withDrives(`{"drive_id": "a/b", "path_on_host": "disk", "is_root_device": false}`),
	"a drive twice":                   withDrives(`{"drive_id": "d", "path_on_host": "disk", "is_root_device": true}, {"drive_id": "d", "path_on_host": "disk", "is_root_device": true}`),
	"a drive as a list":               withDrives(`["d", null, true, "Unsafe", null, "disk", null, null, null]`),
	"half a limit":                    withDrives(`{"drive_id": "d", "path_on_host": "disk", "is_root_device": false, "rate_limiter": {"ops": {"size": 1}}}`),
	"a MAC twice":                     withSections(`"network-interfaces": [{"iface_id": "a", "host_dev_name": "t0", "guest_mac": "12:34:56:78:9a:BC"}, {"iface_id": "b", "host_dev_name": "t1", "guest_mac": "12:34:56:78:9a:bc"}]`),
	"half a MAC":                      withSections(`"network-interfaces": [{"iface_id": "a", "host_dev_name": "t0", "guest_mac": "12:34"}]`),
	"a TAP twice":                     withSections(`"network-interfaces": [{"iface_id": "a", "host_dev_name": "t0"}, {"iface_id": "b", "host_dev_name": "t0"}]`),
	"a NIC twice":                     withSections(`"network-interfaces": [{"iface_id": "a", "host_dev_name": "t0"}, {"iface_id": "a", "host_dev_name": "t1"}]`),
	"a TAP of too long a name":        withSections(`"network-interfaces": [` + longTAP + `]`),
	"a socket in no directory":        withSections(`"vsock": {"guest_cid": 3, "uds_path": "none/a"}`),
	"a socket of too long a name":     withSections(`"vsock": {"guest_cid": 3, "uds_path": "` + strings.Repeat("x", 120) + `"}`),
	"metadata at 8.8.8.8":             withSections(`"network-interfaces": [{"iface_id": "a", "host_dev_name": "t0"}], "mmds-config": {"network_interfaces": ["a"], "ipv4_address": "8.8.8.8"}`),
	"metadata of an empty list":       withSections(`"mmds-config": {"network_interfaces": []}`),
	"metrics":                         withSections(`"metrics": {"metrics_path": "metrics"}`),
	"metrics into a directory":        withSections(`"metrics": {"metrics_path": "."}`),
	"a log into a directory":          withSections(`"logger": {"log_path": "."}`),
	"an unknown level":                withSections(`"logger": {"level": "nonsense"}`),
	"a log":                           withSections(`"logger": {"log_path": "metrics", "level": "warning"}`),
	"a broken template":               withSections(`"cpu-config": "broken"`),
	"a template that is no text":      withSections(`"cpu-config": "binary"`),
	"an empty template":               withSections(`"cpu-config": "metrics"`),
	"a directory as a template":       withSections(`"cpu-config": "."`),
	"a list of all sections":          `[null, [], {"kernel_image_path": "kernel"}, null, null, null, null, null, [], null, null]`,
	"a list of one more":              `[null, [], {"kernel_image_path": "kernel"}, null, null, null, null, null, [], null, null, null]`,
	"a list of too few":               `[null, [], {"kernel_image_path": "kernel"}, null, null, null, null, null]`,
	"more behind it":                  `{` + boots + `, "drives": []} x`,
	"no text":                         "\xff\xfe",
	"a wrong field after a wrong log": withSections(`"logger": {"log_path": "none"}, "entropy": {"nonsense": 7}`),

	// Of two sections that are both wrong, the one that is taken first is refused, whatever the file's order.
	"log, then metrics":      withSections(`"metrics": {"metrics_path": "none"}, "logger": {"log_path": "none"}`),
	"machine, then template": withSections(`"cpu-config": "none", "machine-config": {"vcpu_count": 33, "mem_size_mib": 128}`),
	"template, then kernel":  `{"boot-source": {"kernel_image_path": "none"}, "drives": [], "cpu-config": "none"}`,
	"kernel, then drives":    `{"drives": [` + noDrive + `], "boot-source": {"kernel_image_path": "none"}}`,
	"drives, then NICs":      `{"network-interfaces": [` + longTAP + `], "drives": [` + noDrive + `], ` + boots + `}`,
	"NICs, then socket":      withSections(`"vsock": {"guest_cid": 3, "uds_path": "disk"}, "network-interfaces": [` + longTAP + `]`),
	"socket, then balloon":   withSections(`"balloon": {"amount_mib": 500, "deflate_on_oom": true}, "vsock": {"guest_cid": 3, "uds_path": "disk"}`),
	"balloon, then metadata": withSections(`"mmds-config": {"network_interfaces": []}, "balloon": {"amount_mib": 500, "deflate_on_oom": true}`),
	"metadata, then a start": `{"boot-source": {"kernel_image_path": "disk"}, "drives": [], "mmds-config": {"network_interfaces": []}}`,
}

const (
	longTAP = `{"iface_id": "a", "host_dev_name": "t012345678901234"}`
	noDrive = `{"drive_id": "d", "path_on_host": "none", "is_root_device": false}`
)

// withSections is a file of the least and more sections.
func withSections(sections string) string { return `{` + boots + `, "drives": [], ` + sections + `}` }

func withDrives(drives string) string { return `{` + boots + `, "drives": [` + drives + `]}` }

// A configuration file is taken, and refused, alike: sections that nobody knows are ignored by both.
func TestRealConfigurationFilesAlike(t *testing.T) {
	l := newLab(t)
	var names []string
	for name := range configurations {
		names = append(names, name)
	}
	inParallel(names, func(name string) { l.runAlike(t, configurations[name], noAPI("--log-path", "log")) })
}

// So is one that ends too early, and one with a section of another kind.
func TestRealBrokenConfigurationFilesAlike(t *testing.T) {
	l := newLab(t)
	release, err := Find(l.version)
	if err != nil {
		t.Fatal(err)
	}
	whole := `{` + boots + `, "drives": [` + noDrive + `],
 "machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "smt": false}, "nonsense": [1, "a\u00e9", {"b": true}], "entropy": {"rate_limiter": null}}`
	var files []string
	for i := range len(whole) {
		files = append(files, whole[:i])
	}
	sections, _ := release.fields("FullVmConfiguration")
	for _, section := range sections {
		for _, value := range values {
			files = append(files, with(t, `{`+boots+`, "drives": []}`, section, value))
		}
	}
	inParallel(files, func(file string) { l.runAlike(t, file, noAPI()) })
}
