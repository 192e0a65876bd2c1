package sni_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tangle-network/microvm-runtime/internal/sni"
)

// helloOf is what crypto/tls says first.
func helloOf(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(client, config).Handshake() // it fails: nobody answers
	}()
	hello, err := sni.ReadHello(server)
	if err != nil && !errors.Is(err, sni.ErrNoName) {
		t.Fatal(err)
	}
	server.Close()
	client.Close()
	<-done
	return hello.Raw
}

// fragment cuts the one record of a hello in pieces of n bytes.
func fragment(hello []byte, n int) (records []byte) {
	for payload := hello[5:]; len(payload) > 0; {
		piece := payload[:min(n, len(payload))]
		payload = payload[len(piece):]
		records = append(binary.BigEndian.AppendUint16(append(records, hello[:3]...), uint16(len(piece))), piece...)
	}
	return records
}

func TestHellosOfTLSInGo(t *testing.T) {
	for what, config := range map[string]*tls.Config{
		"1.3":        {ServerName: "www.example.com"},
		"1.2":        {ServerName: "www.example.com", MaxVersion: tls.VersionTLS12},
		"1.0":        {ServerName: "www.example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"with ALPN":  {ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}},
		"large ALPN": {ServerName: "www.example.com", NextProtos: []string{strings.Repeat("a", 255), strings.Repeat("b", 255), strings.Repeat("c", 255)}},
	} {
		raw := helloOf(t, config)
		for _, size := range []int{1 << 14, len(raw)/2 + 1, len(raw)/31 + 1} {
			records := fragment(raw, size)
			stream := bytes.NewReader(append(bytes.Clone(records), "what follows"...))
			hello, err := sni.ReadHello(iotest.OneByteReader(stream))
			if err != nil || hello.Name != "www.example.com" || hello.Encrypted || !bytes.Equal(hello.Raw, records) {
				t.Errorf("%s in records of %d: %q, %t, %d bytes of %d, %v", what, size, hello.Name, hello.Encrypted, len(hello.Raw), len(records), err)
			}
			if rest, _ := io.ReadAll(stream); string(rest) != "what follows" {
				t.Errorf("%s in records of %d: %q is left", what, size, rest)
			}
		}
		if _, err := sni.ReadHello(bytes.NewReader(fragment(raw, 1))); !errors.Is(err, sni.ErrNotTLS) {
			t.Errorf("%s in a record for each byte: %v", what, err)
		}
	}
	hello, err := sni.ReadHello(bytes.NewReader(helloOf(t, &tls.Config{InsecureSkipVerify: true})))
	if !errors.Is(err, sni.ErrNoName) || hello.Name != "" {
		t.Errorf("without a name: %q, %v", hello.Name, err)
	}
}

// build makes a hello of extensions, each a type and its data.
func build(extensions ...any) []byte {
	var list []byte
	for i := 0; i < len(extensions); i += 2 {
		data := extensions[i+1].([]byte)
		list = binary.BigEndian.AppendUint16(list, uint16(extensions[i].(int)))
		list = append(binary.BigEndian.AppendUint16(list, uint16(len(data))), data...)
	}
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	return wrap(append(binary.BigEndian.AppendUint16(body, uint16(len(list))), list...))
}

// wrap makes a record of the body of a hello.
func wrap(body []byte) []byte {
	message := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append(binary.BigEndian.AppendUint16([]byte{22, 3, 1}, uint16(len(message))), message...)
}

// names is the extension's data of names, of a type each.
func names(kind byte, names ...string) []byte {
	var list []byte
	for _, name := range names {
		list = append(binary.BigEndian.AppendUint16(append(list, kind), uint16(len(name))), name...)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
}

func TestHellosThatAreNone(t *testing.T) {
	good := build(0, names(0, "a.example"))
	change := func(at int, b byte) []byte {
		changed := bytes.Clone(good)
		changed[at] = b
		return changed
	}
	for what, test := range map[string]struct {
		stream []byte
		want   error
	}{
		"a good one":               {good, nil},
		"with ECH":                 {build(0, names(0, "a.example"), 0xfe0d, []byte{0}), nil},
		"no extensions":            {wrap(append(make([]byte, 34), 0, 0, 2, 0x13, 1, 1, 0)), sni.ErrNoName},
		"no name":                  {build(16, []byte{}), sni.ErrNoName},
		"nothing":                  {nil, sni.ErrNotTLS},
		"HTTP":                     {[]byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), sni.ErrNotTLS},
		"SSH":                      {[]byte("SSH-2.0-OpenSSH_9.2\r\n"), sni.ErrNotTLS},
		"SSL 2":                    {[]byte{0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16, 0, 0, 0}, sni.ErrNotTLS},
		"an alert":                 {[]byte{21, 3, 3, 0, 2, 2, 112}, sni.ErrNotTLS},
		"another version":          {change(1, 2), sni.ErrNotTLS},
		"an empty record":          {append([]byte{22, 3, 1, 0, 0}, good...), sni.ErrNotTLS},
		"a server's hello":         {change(5, 2), sni.ErrNotTLS},
		"cut short":                {good[:len(good)-1], sni.ErrNotTLS},
		"cut in the header":        {good[:3], sni.ErrNotTLS},
		"a length too small":       {change(8, good[8]-1), sni.ErrNotTLS},
		"a length of 16 MB":        {change(6, 255), sni.ErrNotTLS},
		"a long session":           {change(5+4+34, 200), sni.ErrNotTLS},
		"two names":                {build(0, names(0, "a.example", "b.example")), sni.ErrNotTLS},
		"the extension twice":      {build(0, names(0, "a.example"), 0, names(0, "b.example")), sni.ErrNotTLS},
		"another extension twice":  {build(0, names(0, "a.example"), 5, []byte{}, 5, []byte{}), sni.ErrNotTLS},
		"a name of another type":   {build(0, names(1, "a.example")), sni.ErrNotTLS},
		"an empty name":            {build(0, names(0, "")), sni.ErrNotTLS},
		"no name in the list":      {build(0, []byte{0, 0}), sni.ErrNotTLS},
		"an empty extension":       {build(0, []byte{}), sni.ErrNotTLS},
		"a name of 256 bytes":      {build(0, names(0, strings.Repeat("a", 256))), sni.ErrNotTLS},
		"more after the list":      {build(0, append(names(0, "a.example"), 0)), sni.ErrNotTLS},
		"more after the extension": {wrap(append(bytes.Clone(good[9:]), 0)), sni.ErrNotTLS},
	} {
		hello, err := sni.ReadHello(bytes.NewReader(test.stream))
		if !errors.Is(err, test.want) || test.want == nil && hello.Name != "a.example" || test.want != nil && hello.Name != "" && what != "the extension twice" && what != "another extension twice" {
			t.Errorf("%s: %q, %v; want %v", what, hello.Name, err, test.want)
		}
		if hello.Encrypted != (what == "with ECH") {
			t.Errorf("%s: encrypted: %t", what, hello.Encrypted)
		}
	}
}

// FuzzReadHello sees to it that what is read is what was there, bounded, and that a name is accepted only where crypto/tls sees the same.
func FuzzReadHello(f *testing.F) {
	f.Add(build(0, names(0, "a.example")))
	f.Add(build(0, names(0, "a.example"), 0xfe0d, []byte{0}))
	f.Add(helloOf(f, &tls.Config{ServerName: "www.example.com"}))
	f.Add(fragment(helloOf(f, &tls.Config{ServerName: "www.example.com", MaxVersion: tls.VersionTLS12}), 100))
	f.Fuzz(func(t *testing.T, stream []byte) {
		hello, err := sni.ReadHello(bytes.NewReader(stream))
		if !bytes.HasPrefix(stream, hello.Raw) || len(hello.Raw) > 17<<10 {
			t.Fatalf("%d bytes were read of %d, and are not those", len(hello.Raw), len(stream))
		}
		if err != nil {
			if !errors.Is(err, sni.ErrNoName) && !errors.Is(err, sni.ErrNotTLS) {
				t.Fatal(err)
			}
			return
		}
		if seen, ok := serverName(hello.Raw); ok && seen != hello.Name && seen+"." != hello.Name {
			t.Fatalf("%q was read, a server sees %q", hello.Name, seen)
		}
	})
}

// serverName is what a server of crypto/tls takes a hello's name for, false where it takes no such hello.
func serverName(raw []byte) (name string, ok bool) {
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = hello.ServerName, true
		return nil, errors.New("seen")
	}}
	tls.Server(&oneWay{Reader: bytes.NewReader(raw)}, config).Handshake()
	return name, ok
}

// oneWay is a connection that takes what it is told for granted.
type oneWay struct {
	net.Conn
	io.Reader
}

func (c *oneWay) Read(b []byte) (int, error)  { return c.Reader.Read(b) }
func (c *oneWay) Write(b []byte) (int, error) { return len(b), nil }
func (c *oneWay) Close() error                { return nil }
