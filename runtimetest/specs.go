package runtimetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	microvm "github.com/tangle-network/microvm-runtime"
)

// badSpecs has at least one bad value for each field of a Spec, and a part of what the error must say.
var badSpecs = map[string][]badSpec{
	"VCPUs":     {{microvm.Spec{VCPUs: -1}, "1 to 32"}, {microvm.Spec{VCPUs: 33}, "1 to 32"}},
	"MemoryMiB": {{microvm.Spec{MemoryMiB: -1}, "1 to 1048576"}, {microvm.Spec{MemoryMiB: 1<<20 + 1}, "1 to 1048576"}},
	"Kernel": {
		{microvm.Spec{Kernel: "./relative"}, "absolute path"}, {microvm.Spec{Kernel: ".hidden"}, "or a name"}, {microvm.Spec{Kernel: "a b"}, "or a name"}, {microvm.Spec{Kernel: "/a\x00b"}, "NUL"},
		{microvm.Spec{Kernel: "/" + strings.Repeat("k", 4096)}, "at most 4095 bytes"},
	},
	"Initrd": {{microvm.Spec{Initrd: "relative"}, "absolute path"}, {microvm.Spec{Initrd: "/a\x00"}, "NUL"}},
	"KernelArgs": {
		{microvm.Spec{KernelArgs: strings.Repeat("a", 1025)}, "at most 1024 bytes"}, {microvm.Spec{KernelArgs: "a\nb"}, "printable ASCII"},
		{microvm.Spec{KernelArgs: "ä"}, "printable ASCII"},
	},
	"Image":          {{microvm.Spec{Image: "./relative"}, "absolute path"}, {microvm.Spec{Image: "/a\x00"}, "NUL"}, {microvm.Spec{Image: "a b"}, "an image's name"}, {microvm.Spec{Image: strings.Repeat("n", 256)}, "at most 255"}},
	"Rootfs":         {{microvm.Spec{Rootfs: "a/relative"}, "absolute path"}, {microvm.Spec{Rootfs: ".."}, "or a name"}, {microvm.Spec{Rootfs: strings.Repeat("n", 65)}, "or a name"}, {microvm.Spec{Rootfs: "/a", Image: "/b"}, "together with Image"}},
	"RootfsWritable": {{microvm.Spec{RootfsWritable: true}, "needs Rootfs"}},
	"RootfsMiB": {
		{microvm.Spec{RootfsMiB: -1, Rootfs: "/a", RootfsWritable: true}, "1 to 16777216"}, {microvm.Spec{RootfsMiB: 1<<24 + 1, Rootfs: "/a", RootfsWritable: true}, "1 to 16777216"},
		{microvm.Spec{RootfsMiB: 1, Rootfs: "/a"}, "needs RootfsWritable"},
	},
	"Diskless": {{microvm.Spec{Diskless: true, Image: "/a"}, "together with Image"}, {microvm.Spec{Diskless: true, Rootfs: "/a"}, "together with Image or Rootfs"}},
	"LayerMiB": {
		{microvm.Spec{LayerMiB: 15}, "16 to 16777216"}, {microvm.Spec{LayerMiB: -1}, "16 to 16777216"}, {microvm.Spec{LayerMiB: 1<<24 + 1}, "16 to 16777216"},
		{microvm.Spec{LayerMiB: 64, Diskless: true}, "needs Image"},
	},
	"LayerInMemory": {
		{microvm.Spec{LayerInMemory: true, Diskless: true}, "needs Image"}, {microvm.Spec{LayerInMemory: true, Rootfs: "/a"}, "needs Image"},
		{microvm.Spec{LayerInMemory: true, Image: "/a", LayerMiB: 64}, "together with LayerMiB"},
	},
	"DiskLimit": {
		{microvm.Spec{DiskLimit: &microvm.RateLimit{BytesPerSecond: 4095}}, "BytesPerSecond must be 4096 to 1099511627776"},
		{microvm.Spec{DiskLimit: &microvm.RateLimit{BytesPerSecond: -1}}, "BytesPerSecond must be"}, {microvm.Spec{DiskLimit: &microvm.RateLimit{BytesPerSecond: 1<<40 + 1}}, "BytesPerSecond must be"},
		{microvm.Spec{DiskLimit: &microvm.RateLimit{BytesBurst: 1}}, "needs BytesPerSecond"}, {microvm.Spec{DiskLimit: &microvm.RateLimit{BytesPerSecond: 4096, BytesBurst: -1}}, "BytesBurst must be 0 to"},
		{microvm.Spec{DiskLimit: &microvm.RateLimit{OpsPerSecond: -1}}, "OpsPerSecond must be 1 to 1000000000"}, {microvm.Spec{DiskLimit: &microvm.RateLimit{OpsPerSecond: 1e9 + 1}}, "OpsPerSecond must be"},
		{microvm.Spec{DiskLimit: &microvm.RateLimit{OpsBurst: 1}}, "needs OpsPerSecond"}, {microvm.Spec{DiskLimit: &microvm.RateLimit{OpsPerSecond: 1, OpsBurst: 1e9 + 1}}, "OpsBurst must be 0 to"},
		{microvm.Spec{DiskLimit: &microvm.RateLimit{OpsPerSecond: 1}, Diskless: true}, "needs Image or Rootfs"},
	},
	"Drives": {
		{microvm.Spec{Drives: []microvm.Drive{{}}}, "absolute path"}, {microvm.Spec{Drives: []microvm.Drive{{Path: "/a", ReadOnly: true}, {Path: "relative"}}}, "drive 1 must be an absolute path"},
		{microvm.Spec{Drives: []microvm.Drive{{Path: "/a\x00"}}}, "NUL"}, {microvm.Spec{Drives: make([]microvm.Drive, 9)}, "at most 8"},
		{microvm.Spec{Drives: []microvm.Drive{{Path: "/a"}, {Path: "/a"}}}, "drive 1 is another drive too"},
		{microvm.Spec{Drives: []microvm.Drive{{Path: "/a", ReadOnly: true}, {Path: "/a"}}}, "one of them is writable"},
		{microvm.Spec{Drives: []microvm.Drive{{Path: "/a", Limit: &microvm.RateLimit{OpsPerSecond: -1}}}}, "the limit of drive 0: OpsPerSecond must be"},
	},
	"Network": badNetworks,
	"Labels": {
		{microvm.Spec{Labels: map[string]string{"": "v"}}, "keys must be"}, {microvm.Spec{Labels: map[string]string{"a b": "v"}}, "keys must be"},
		{microvm.Spec{Labels: map[string]string{strings.Repeat("k", 64): "v"}}, "keys must be"}, {microvm.Spec{Labels: map[string]string{"k": "\n"}}, "values must be"},
		{microvm.Spec{Labels: map[string]string{"k": strings.Repeat("v", 257)}}, "values must be"}, {microvm.Spec{Labels: map[string]string{"k": "\xff"}}, "values must be"},
		{microvm.Spec{Labels: manyLabels()}, "at most 64"},
	},
}

type badSpec struct {
	spec microvm.Spec
	text string
}

func manyLabels() map[string]string {
	labels := map[string]string{}
	for i := range 65 {
		labels[fmt.Sprint(i)] = ""
	}
	return labels
}

var specs = group{"specs", specCases()}

// allGood are the fields of which no value is bad by itself.
var allGood = []string{"TrackDirty"}

// specCases has a case for each other field that a Spec has now: one without bad values fails.
func specCases() []testCase {
	var cases []testCase
	for field := range reflect.TypeFor[microvm.Spec]().Fields() {
		if slices.Contains(allGood, field.Name) {
			continue
		}
		cases = append(cases, testCase{"bad " + field.Name, func(c *checker) {
			if len(badSpecs[field.Name]) == 0 {
				c.Fatalf("no bad value is known for Spec.%s", field.Name)
			}
			for i, bad := range badSpecs[field.Name] {
				c.leavesNothing(fmt.Sprint("value ", i), func() { c.refuses(field.Name, bad) })
			}
			c.create("one") // and a good one works
		}})
	}
	return cases
}

// refuses fails the case unless a create is refused with an error that names the field and says what is wrong, in few words.
func (c *checker) refuses(field string, bad badSpec) {
	c.Helper()
	_, err := c.rt.Create(c.ctx, "one", bad.spec)
	c.is(err, microvm.ErrInvalid)
	which := (*microvm.FieldError)(nil)
	if !errors.As(err, &which) || which.Field != "Spec."+field && !strings.HasPrefix(which.Field, "Spec."+field+".") || !strings.Contains(err.Error(), bad.text) {
		c.Errorf("error %q, want one about Spec.%s that says %q", err, field, bad.text)
	}
	if len(err.Error()) > 300 {
		c.Errorf("the error has %d bytes", len(err.Error()))
	}
}
