package kernel

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// whole is a configuration that nothing is missing in.
func whole(arch string) map[string]string {
	set := map[string]string{arch: "y", "MODULES": "y"}
	for _, r := range requirements {
		for option := range strings.FieldsSeq(r.options) {
			if r.arch == "" || r.arch == arch {
				set[option] = "y"
			}
		}
	}
	return set
}

func configOf(set map[string]string) []byte {
	var b strings.Builder
	b.WriteString("#\n# Automatically generated file; DO NOT EDIT.\n#\nCONFIG_CC_VERSION_TEXT=\"gcc=12\"\n# CONFIG_WERROR is not set\n")
	for _, option := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "CONFIG_%s=%s\n", option, set[option])
	}
	return []byte(b.String())
}

// TestCheckFindsEach: every requirement is found missing, alone, with what it costs, and not when any of its options is there.
func TestCheckFindsEach(t *testing.T) {
	for _, arch := range []string{"X86_64", "ARM64"} {
		if findings := Check(configOf(whole(arch))); len(findings) > 0 {
			t.Errorf("%s: nothing is missing: %+v", arch, findings)
		}
		for _, r := range requirements {
			set := whole(arch)
			for option := range strings.FieldsSeq(r.options) {
				delete(set, option)
			}
			findings := Check(configOf(set))
			at := slices.IndexFunc(findings, func(f Finding) bool {
				return f.Option == names(r.options) && f.Severity == r.severity && f.Cost == r.cost
			})
			if wanted := r.arch == "" || r.arch == arch; (at >= 0) != wanted {
				t.Errorf("%s without %s: %+v, want it found: %v", arch, r.options, findings, wanted)
			}
			if r.arch != "" && r.arch != arch {
				continue
			}
			for option := range strings.FieldsSeq(r.options) {
				set[option] = "m"
				found := slices.ContainsFunc(Check(configOf(set)), func(f Finding) bool { return f.Option == names(r.options) })
				if found == r.module {
					t.Errorf("%s with %s as a module: found %v", arch, option, found)
				}
				set[option] = "y"
				if slices.ContainsFunc(Check(configOf(set)), func(f Finding) bool { return f.Option == names(r.options) }) {
					t.Errorf("%s with %s: it is missing", arch, option)
				}
				delete(set, option)
			}
		}
	}
}

// TestCheckWithoutModules: a module is of no use to a kernel that loads none.
func TestCheckWithoutModules(t *testing.T) {
	set := whole("X86_64")
	set["VIRTIO_BLK"] = "m"
	if findings := Check(configOf(set)); len(findings) > 0 {
		t.Errorf("with modules: %+v", findings)
	}
	delete(set, "MODULES")
	findings := Check(configOf(set))
	if len(findings) != 1 || findings[0].Option != "CONFIG_VIRTIO_BLK" || Worst(findings) != SeverityError || !strings.Contains(findings[0].Cost, "is a module") {
		t.Errorf("without: %+v", findings)
	}
}

func TestCheckOfNoConfiguration(t *testing.T) {
	for name, config := range map[string]string{"empty": "", "garbage": "\x00\x7fELF", "another architecture": "CONFIG_RISCV=y\n", "not set": "# CONFIG_X86_64 is not set\n", "a long line": strings.Repeat("x", 1<<20)} {
		if findings := Check([]byte(config)); len(findings) != 1 || Worst(findings) != SeverityError {
			t.Errorf("%s: %+v", name, findings)
		}
	}
}

func TestWorst(t *testing.T) {
	for want, severities := range map[Severity][]Severity{"": nil, SeverityNote: {SeverityNote}, SeverityWarning: {SeverityNote, SeverityWarning}, SeverityError: {SeverityWarning, SeverityError, SeverityNote}} {
		var findings []Finding
		for _, severity := range severities {
			findings = append(findings, Finding{Severity: severity})
		}
		if got := Worst(findings); got != want {
			t.Errorf("%v: %q, want %q", severities, got, want)
		}
	}
}

// TestBuiltInConfig: it is found among texts that look like its marks, and nothing that is damaged or too large is believed.
func TestBuiltInConfig(t *testing.T) {
	pack := func(config []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(config)
		w.Close()
		return slices.Concat(configBegin, b.Bytes(), configEnd)
	}
	want := configOf(whole("X86_64"))
	packed := pack(want)
	damaged := bytes.Clone(packed)
	damaged[len(damaged)/2] ^= 0xff
	for name, c := range map[string]struct {
		image []byte
		ok    bool
	}{
		"alone":             {packed, true},
		"in a kernel":       {slices.Concat(make([]byte, 1<<16), configBegin, []byte("text"), configEnd, packed, make([]byte, 1<<16)), true},
		"a text before":     {slices.Concat([]byte("no IKCFG_ST here"), packed), true},
		"none":              {make([]byte, 1<<16), false},
		"empty":             {nil, false},
		"only the mark":     {configBegin, false},
		"without end":       {packed[:len(packed)-len(configEnd)], false},
		"damaged":           {damaged, false},
		"larger than sense": {pack(make([]byte, maxConfig+1)), false},
	} {
		got, err := Config(c.image)
		if c.ok && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if !c.ok && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %d bytes, %v, want ErrFormat", name, len(got), err)
		}
	}
}
