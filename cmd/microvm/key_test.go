//go:build linux

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	microvm "github.com/tangle-network/microvm-runtime"
)

// What openssl genpkey -algorithm ed25519 and openssl pkey -pubout write. Nobody trusts it.
const (
	privateText = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEID3pMCA0tru6HtGboLqpBqbOgnvcYwmEkJMLyIKg0+ih
-----END PRIVATE KEY-----
`
	publicText = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAZmE8qmZ6U8gzppTQnquu9S5Jl4TVSREJSMppnZ3jq34=
-----END PUBLIC KEY-----
`
)

func TestKeys(t *testing.T) {
	write := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, err := readPrivateKey(write("a comment\n" + privateText))
	if err != nil {
		t.Fatal(err)
	}
	public, err := readPublicKeys(write(publicText + publicText))
	if err != nil || len(public) != 2 || !public[0].Equal(private.Public()) || !public[1].Equal(private.Public()) {
		t.Errorf("%x, %v", public, err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nothing": "", "no PEM": "none", "a public key": publicText, "another algorithm": pemOf(t, "PRIVATE KEY", other), "no key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"one that is encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
	} {
		if _, err := readPrivateKey(write(text)); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("private: %s: %v", what, err)
		}
	}
	for what, text := range map[string]string{
		"nothing": "", "no PEM": "none", "a private key": privateText, "one of them private": publicText + privateText, "another algorithm": pemOf(t, "PUBLIC KEY", &other.PublicKey),
		"no key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	} {
		if _, err := readPublicKeys(write(text)); !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("public: %s: %v", what, err)
		}
	}
	if _, err := readPublicKeys(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func pemOf(t testing.TB, kind string, key any) string {
	t.Helper()
	encode := x509.MarshalPKCS8PrivateKey
	if kind == "PUBLIC KEY" {
		encode = x509.MarshalPKIXPublicKey
	}
	der, err := encode(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// makeKey is a script's command: "key NAME" makes the files NAME and NAME.pub.
func makeKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: key NAME")
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	ts.Check(err)
	open, err := x509.MarshalPKIXPublicKey(public)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	ts.Check(os.WriteFile(path+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open}), 0o644))
}
