#!/bin/sh
# Makes what is in this directory, with OpenSSL 3, in a directory of its own.
set -e
# An authority, one below it, a leaf, a responder that is delegated, one that is not, somebody who
# calls himself like the authority, and responders whose certificates do not let them sign, or
# have a critical extension that nobody knows.
ext() { printf "$1" > $2; }
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1.key 2>/dev/null; }
for n in ca sub leaf ocsp plain other usage strange; do key $n; done
printf "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n" > ca.ext
printf "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,OCSPSigning\nnoCheck=ignored\n" > ocsp.ext
printf "extendedKeyUsage=OCSPSigning\nkeyUsage=critical,keyEncipherment\n" > usage.ext
printf "extendedKeyUsage=OCSPSigning\n1.2.3.4=critical,ASN1:NULL\n" > strange.ext
printf "keyUsage=digitalSignature\nsubjectAltName=DNS:leaf.test\n" > leaf.ext
root() { openssl req -new -key $1.key -subj "/CN=$2" -out $1.csr; openssl x509 -req -in $1.csr -signkey $1.key -days 7300 -extfile ca.ext -set_serial 1 -out $1.pem 2>/dev/null; }
issue() { openssl req -new -key $2.key -subj "/CN=$3" -out $2.csr; openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -days $6 -extfile $4 -set_serial $5 -out $2.pem 2>/dev/null; }
root ca "OCSP test CA"; root other "OCSP test CA"
issue ca sub "OCSP test sub CA" ca.ext 16 7300
issue sub leaf "leaf.test" leaf.ext 4660 7300
issue sub ocsp "OCSP responder" ocsp.ext 99 7300
issue sub plain "not a responder" leaf.ext 100 7300
issue sub usage "OCSP responder" usage.ext 101 7300
issue sub strange "OCSP responder" strange.ext 102 7300
line() { printf "$1\t%s\t$2\t$3\tunknown\t/CN=$4\n" 460101000000Z; }
line V "" 1234 leaf.test > good.txt
line R 260101000000Z 1234 leaf.test > revoked.txt
line V "" 77 other >empty.txt
line V "" 10 sub > sub.txt
resp() { # out index signer issuer cert days extra
 out=$1; idx=$2; signer=$3; iss=$4; cert=$5; shift 5
 openssl ocsp -issuer $iss.pem -cert $cert.pem -no_nonce -reqout req.der >/dev/null 2>&1
 openssl ocsp -index $idx -rsigner $signer.pem -rkey $signer.key -CA $iss.pem -reqin req.der -respout $out.der "$@" 2>&1 | head -3
}
resp good good.txt sub sub leaf -ndays 3650
resp revoked revoked.txt sub sub leaf -ndays 3650
resp unknown empty.txt sub sub leaf -ndays 3650
resp expired good.txt sub sub leaf -nmin 1
resp endless good.txt sub sub leaf
resp wrong-signer good.txt other sub leaf -ndays 3650
resp delegated good.txt ocsp sub leaf -ndays 3650
resp not-delegated good.txt plain sub leaf -ndays 3650
resp no-signer good.txt usage sub leaf -ndays 3650
resp critical good.txt strange sub leaf -ndays 3650
resp sub-good sub.txt ca ca sub -ndays 3650
sleep 2
openssl ocsp -sha256 -issuer sub.pem -cert leaf.pem -no_nonce -reqout req.der >/dev/null 2>&1
openssl ocsp -index good.txt -rsigner sub.pem -rkey sub.key -CA sub.pem -reqin req.der -respout sha256.der -ndays 3650
printf "" > index.txt; printf "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\ncrlnumber=crlnumber\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n" > crl.cnf; echo 01 > crlnumber
openssl ca -config crl.cnf -gencrl -cert ca.pem -keyfile ca.key -out ca.crl 2>&1 | head -3
