package wire

import (
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:8080": "tcp", "[::1]:1": "tcp", "name.local:65535": "tcp", "/run/socket": "unix", "/" + strings.Repeat("a", 106): "unix",
		"": "", "a": "", ":80": "", "a:": "", "a:0": "", "a:65536": "", "a:http": "", "a:-1": "", "a:+1": "", "::1:80": "", "socket": "", "@abstract": "", "/a\x00": "",
		"/" + strings.Repeat("a", 107): "", strings.Repeat("a", 256) + ":1": "",
	} {
		network, address, err := Target(text)
		if network != want || (err == nil) != (want != "") || err == nil && address != text {
			t.Errorf("%q: %q, %q, %v; want %q", text, network, address, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string][3]bool{ // of a variable, a secret, a host
		"a": {true, true, true}, "A_b1": {true, true, false}, "a-b": {false, true, true}, "a.b": {false, false, true}, "1": {false, true, true}, "_": {true, true, false},
		"": {}, "..": {}, "a/b": {}, "a=b": {}, "ü": {}, "a b": {}, "a\n": {}, ".new": {}, "a.": {}, "-a": {false, true, false},
		strings.Repeat("a", 64): {true, true, true}, strings.Repeat("a", 65): {true, false, false},
	} {
		if got := [3]bool{ValidVariable(name), ValidSecret(name), ValidHostname(name)}; got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
