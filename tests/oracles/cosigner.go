// Cosigner reads and writes C2SP tlog-cosignature lines with Go's standard library, which knows
// nothing of checkrein. It needs crypto/mldsa: Go 1.27.
//
//	cosigner verify VKEY                      a signed note on standard input
//	cosigner sign TYPE NAME SEED-HEX TIME     a checkpoint's text on standard input
//
// It prints the time of the cosignature, or the verifier key and a signature line, and ends with 0;
// or prints what does not hold and ends with 1.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/mldsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const (
	typeEd25519 = 4
	typeMLDSA44 = 6
)

func main() {
	said, err := run(os.Args[1:])
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Print(said)
}

func run(args []string) (string, error) {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", err
	}
	switch {
	case len(args) == 2 && args[0] == "verify":
		return verify(args[1], string(input))
	case len(args) == 5 && args[0] == "sign":
		return sign(args[1], args[2], args[3], args[4], string(input))
	}
	return "", errors.New("usage: see the top of the source")
}

// message returns what a cosigner signs.
func message(kind byte, name string, time uint64, text string) ([]byte, error) {
	if kind == typeEd25519 {
		return []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)), nil
	}
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 {
		return nil, errors.New("the text is no checkpoint")
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return nil, err
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return nil, errors.New("the root is no hash")
	}
	var m bytes.Buffer
	m.WriteString("subtree/v1\n\x00")
	m.WriteByte(byte(len(name)))
	m.WriteString(name)
	binary.Write(&m, binary.BigEndian, time)
	m.WriteByte(byte(len(lines[0])))
	m.WriteString(lines[0])
	binary.Write(&m, binary.BigEndian, uint64(0))
	binary.Write(&m, binary.BigEndian, size)
	m.Write(root)
	return m.Bytes(), nil
}

func keyID(name string, kind byte, public []byte) []byte {
	sum := sha256.Sum256(append([]byte(name+"\n"+string([]byte{kind})), public...))
	return sum[:4]
}

func verify(vkey, note string) (string, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(data) == 0 {
		return "", errors.New("no verifier key")
	}
	kind, public := data[0], data[1:]
	if hex.EncodeToString(keyID(name, kind, public)) != id {
		return "", errors.New("the key has another id")
	}
	end := strings.LastIndex(note, "\n\n")
	if end < 0 {
		return "", errors.New("no note")
	}
	text := note[:end+1]
	for _, line := range strings.Split(note[end+2:], "\n") {
		signature, found := strings.CutPrefix(line, "— "+name+" ")
		if !found {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(signature)
		if err != nil || len(raw) < 12 || hex.EncodeToString(raw[:4]) != id {
			continue
		}
		time := binary.BigEndian.Uint64(raw[4:12])
		if err := check(kind, public, name, time, text, raw[12:]); err != nil {
			return "", err
		}
		return fmt.Sprintln(time), nil
	}
	return "", errors.New("no signature by that key")
}

func check(kind byte, public []byte, name string, time uint64, text string, signature []byte) error {
	m, err := message(kind, name, time, text)
	if err != nil {
		return err
	}
	switch kind {
	case typeEd25519:
		if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, m, signature) {
			return errors.New("the Ed25519 cosignature is wrong")
		}
		return nil
	case typeMLDSA44:
		key, err := mldsa.NewPublicKey(mldsa.MLDSA44(), public)
		if err != nil {
			return err
		}
		return mldsa.Verify(key, m, signature, nil)
	}
	return errors.New("unknown type")
}

func sign(kind, name, seed, time, text string) (string, error) {
	secret, err := hex.DecodeString(seed)
	if err != nil {
		return "", err
	}
	stamp, err := strconv.ParseUint(time, 10, 64)
	if err != nil {
		return "", err
	}
	number, err := strconv.ParseUint(kind, 10, 8)
	if err != nil {
		return "", err
	}
	m, err := message(byte(number), name, stamp, text)
	if err != nil {
		return "", err
	}
	public, signature, err := signWith(byte(number), secret, m)
	if err != nil {
		return "", err
	}
	id := keyID(name, byte(number), public)
	key := base64.StdEncoding.EncodeToString(append([]byte{byte(number)}, public...))
	line := binary.BigEndian.AppendUint64(append([]byte{}, id...), stamp)
	line = append(line, signature...)
	return fmt.Sprintf("%s+%x+%s\n— %s %s\n", name, id, key, name,
		base64.StdEncoding.EncodeToString(line)), nil
}

func signWith(kind byte, seed, m []byte) (public, signature []byte, err error) {
	if kind == typeEd25519 {
		key := ed25519.NewKeyFromSeed(seed)
		return key.Public().(ed25519.PublicKey), ed25519.Sign(key, m), nil
	}
	key, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed)
	if err != nil {
		return nil, nil, err
	}
	signature, err = key.SignDeterministic(m, nil)
	return key.PublicKey().Bytes(), signature, err
}
